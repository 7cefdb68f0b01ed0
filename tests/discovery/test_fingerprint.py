"""The two digests of a structure: what changes them, and what must not."""

import sys
from dataclasses import replace

import pytest
import torch
from anonymise import anonymise
from records_zoo import block_layers
from scan_cache import scan
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    MixtralConfig,
    Qwen3Config,
    T5Config,
)

from loradar.discovery.fingerprint import fingerprint, structure
from loradar.discovery.sources import build
from loradar.domain.layers import Evidence
from loradar.references import Reference

SEED = 1
SMALL = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_T5 = {"vocab_size": 64, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2}
DEEPER = SMALL | {"num_hidden_layers": 5, "hidden_size": 32}
RENAMED = ["llama", "t5", "vit", "mixtral", "mamba", "gpt2", "deepseek_v3", "swin"]


def digests(subject, method="auto"):
    """Return (with names, without names)."""
    architecture = scan(subject, method=method).architecture
    return architecture.fingerprint, architecture.structure


def on_meta(model_class):
    """Build a small llama of this class without its weights."""
    with torch.device("meta"):
        return model_class(LlamaConfig(**SMALL))


@pytest.mark.parametrize("name", RENAMED)
def test_a_renamed_copy_differs_in_names_alone(name):
    """Every class, module and parameter renamed at random: another fingerprint, the same structure."""
    original = build(Reference("transformers", name)).eval()
    renamed = anonymise(sys.modules[type(original).__module__], SEED).build_like(original)
    (named, nameless), (other_named, other_nameless) = digests(original), digests(renamed, "dataflow")
    assert nameless is not None
    assert nameless == other_nameless
    assert named != other_named


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("llama", LlamaConfig(**SMALL)),
        ("llama", LlamaConfig(**SMALL, num_key_value_heads=1)),
        ("llama", LlamaConfig(**DEEPER)),
        ("mixtral", MixtralConfig(**SMALL, num_key_value_heads=1)),
        ("t5", T5Config(**SMALL_T5)),
        ("timm:vit_large_patch14_224", "timm:vit_tiny_patch16_224"),
        ("timm:resnet50", "timm:wide_resnet50_2"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_width_and_depth_do_not_enter(name, small):
    """Neither do shared key and value heads, which are a matter of width."""
    assert digests(name) == digests(small)


def test_a_head_does_not_enter():
    """Another task's class has the same digests; the base model, whose paths are shorter, the same structure."""
    causal = digests(on_meta(LlamaForCausalLM))
    assert digests(on_meta(LlamaForSequenceClassification)) == causal
    for other in (LlamaModel, LlamaForQuestionAnswering):
        named, nameless = digests(on_meta(other))
        assert (named != causal[0], nameless) == (True, causal[1])


def test_relatives_are_told_apart_or_not():
    """Mistral is llama; qwen3 differs by norms, which only names tell for sure; t5 and mt5 differ by a gate."""
    llama, mistral, qwen3 = (
        digests(kind(**SMALL, num_key_value_heads=1)) for kind in (LlamaConfig, MistralConfig, Qwen3Config)
    )
    assert llama == mistral
    assert (llama[0] != qwen3[0], llama[1] == qwen3[1]) == (True, True)
    assert digests("t5")[1] != digests("mt5")[1]
    assert digests("timm:resnet18")[1] != digests("timm:resnet50")[1]


def test_names_alone_tell_the_fingerprint_and_no_structure():
    """The one does not depend on the method, the other needs roles that no name told."""
    assert digests("llama", "names") == (digests("llama")[0], None)


def traced(layers):
    """Return layers whose roles dataflow told."""
    return [replace(layer, block=f"model.layers.{layer.path.split('.')[2]}", evidence=SEEN) for layer in layers]


SEEN = (Evidence("dataflow", "seen"),)
BLOCKS = traced(layer for layer in block_layers() if layer.depth)


def first_of(path):
    """Return the blocks with a change to each layer of this name."""

    def change(**values):
        return [replace(layer, **values) if layer.path.endswith(path) else layer for layer in BLOCKS]

    return change


@pytest.mark.parametrize(
    "changed",
    [
        first_of("up_proj")(kind="transposed_linear"),
        first_of("up_proj")(role="mlp.gate_up"),
        first_of("up_proj")(layout="halves"),
        first_of("up_proj")(in_features=3),
        [*BLOCKS[1:7], BLOCKS[0], *BLOCKS[7:]],
        [layer for layer in BLOCKS if layer.path != "model.layers.1.mlp.down_proj"],
    ],
    ids=["kind", "role", "layout", "width it reads", "order", "a layer less in one block"],
)
def test_what_a_block_holds_decides(changed):
    """Kinds, roles, layouts, the widths that meet and the order."""
    assert structure(changed) != structure(BLOCKS)


@pytest.mark.parametrize(
    "changed",
    [
        first_of("q_proj")(out_features=99),
        first_of("up_proj")(out_features=99),
        first_of("norm")(role="other"),
        [replace(layer, path=f"x.{layer.path}", tower="main") for layer in BLOCKS],
        [*BLOCKS, *(replace(layer, block=f"{layer.block}0") for layer in BLOCKS)],
    ],
    ids=["heads", "intermediate width", "norms", "paths and towers", "more of the same"],
)
def test_what_is_an_accident_does_not(changed):
    """Widths that any configuration may change, names, towers and depth."""
    assert structure(changed) == structure(BLOCKS)


def test_a_role_told_by_a_name_does_not_enter():
    """It would not be told of a renamed copy."""
    by_name = [replace(layer, evidence=(Evidence("names", "it says so"),)) for layer in BLOCKS]
    unknown = [replace(layer, role="norm" if layer.kind == "norm" else "other") for layer in by_name]
    assert structure(by_name) == structure(unknown) != structure(BLOCKS)


def test_a_model_without_blocks_is_digested_whole():
    """And one of heads and norms alone has no structure."""
    flat = [replace(layer, depth=0, block=None) for layer in BLOCKS]
    assert structure(flat) is not None
    assert fingerprint(flat) == fingerprint(BLOCKS)
    assert structure([replace(layer, role="head") for layer in flat]) is None


class Order(nn.Module):
    """A block of two layers, whose forward adds or multiplies, with positions in between."""

    def __init__(self, *, multiplies=False, counts_down=False):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
        self._multiplies, self._counts_down = multiplies, counts_down

    def forward(self, hidden):
        """Run both layers."""
        positions = torch.arange(hidden.shape[-1])
        positions = positions.flip(0) + 1 - 1 if self._counts_down else positions
        found = self.down(torch.relu(self.up(hidden)))
        return (found * hidden if self._multiplies else found + hidden) + positions


def test_the_digest_is_of_what_runs():
    """Another operation on features changes it; another way to count positions does not."""
    digests = [scan(Order(**how), torch.ones(2, 4)).digest for how in ({}, {"counts_down": True}, {"multiplies": True})]
    assert digests[0]
    assert digests[0] == digests[1] != digests[2]
