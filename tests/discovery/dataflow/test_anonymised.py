"""The same model without a telling name in it: the scanner finds the same roles, so it did not read them off names."""

import sys
from contextlib import suppress

import pytest
import torch
import zoo
from anonymise import anonymise, original_paths
from scan_cache import scan

from loradar.discovery.sources import build
from loradar.references import Reference

SEED = 1
FAMILIES = ("attention.", "mlp.", "mixer.", "expert.", "moe.router")
ASKED = ["llama", "bert", "gpt_neox", "t5", "mixtral", "vit", "mamba", "phi3"]
CHOSEN = ["qwen3_moe", "deepseek_v3", "whisper", "gpt2", "falcon", "modernbert", "bart", "clip"]
MORE = ["albert", "bloom", "codegen", "dinov2", "distilbert", "gemma2", "gpt_oss", "gptj", "hubert", "jamba", "mamba2"]
STILL_MORE = ["mpt", "nemotron_h", "opt", "qwen3_next", "swin"]


def modeling_of(model):
    """Return the modeling module of a live model."""
    return sys.modules[type(model).__module__]


def roles_of(found, paths=None):
    """Return path -> role of the layers that matter, under the paths of the original model."""
    named = {(paths or {}).get(layer.path, layer.path): layer.role for layer in found.layers}
    return {path: role for path, role in named.items() if role.startswith(FAMILIES)}


@pytest.fixture(scope="module", params=[*ASKED, *CHOSEN, *MORE, *STILL_MORE])
def pair(request):
    """An architecture at full depth, its renamed counterpart, and the renaming."""
    original = build(Reference("transformers", request.param)).eval()
    renaming = anonymise(modeling_of(original), SEED)
    return original, renaming.build_like(original), renaming


def test_no_name_of_the_original_is_left(pair):
    """No path, no class and no configuration but the shared one gives the model away."""
    original, renamed, renaming = pair
    assert not renaming.telling_names(renamed)
    assert len(original_paths(original, renamed)) >= len([*original.named_modules()])
    assert type(renamed).__name__ not in vars(modeling_of(original))
    assert set(renaming.class_name_map).isdisjoint(vars(renaming.module))


def test_the_framework_still_finds_its_way(pair):
    """The renamed model declares the same base model, embeddings, head and ties, so the comparison is fair."""
    original, renamed, _ = pair
    paths = original_paths(original, renamed)
    assert [paths[path] for path in declared(renamed)] == declared(original)
    assert len(renamed._tied_weights_keys or ()) == len(original._tied_weights_keys or ())


def declared(model):
    """Return the paths of what a model declares as its base, its embeddings and its head."""
    modules = [model.base_model, model.get_output_embeddings()]
    with suppress(NotImplementedError):  # clip and hubert declare no embeddings
        modules.append(model.get_input_embeddings())
    return [path for module in modules for path, other in model.named_modules() if other is module]


def test_roles_are_the_same_without_names(pair):
    """Every attention, feed-forward, mixer, expert and router layer keeps its role, position by position."""
    original, renamed, _ = pair
    expected = roles_of(scan(original))
    found = roles_of(scan(renamed, method="dataflow"), original_paths(original, renamed))
    assert expected
    different = {path: (expected.get(path), found.get(path)) for path in expected | found}
    assert {path: roles for path, roles in different.items() if roles[0] != roles[1]} == {}


@pytest.mark.parametrize("specimen", [zoo.gpt2, zoo.bert, zoo.llama, zoo.t5, zoo.vit])
def test_the_renamed_model_computes_the_same(specimen):
    """With the same weights the renamed forward gives the same answer: the rewriting changed nothing but names."""
    original = specimen()
    renaming = anonymise(modeling_of(original.model), SEED)
    renamed = renaming.build_like(original.model).to_empty(device="cpu")
    for one, other in zip(original.model.modules(), renamed.modules(), strict=True):
        one_state, other_state = ({**m._parameters, **m._buffers} for m in (one, other))
        for source, target in zip(one_state.values(), other_state.values(), strict=True):
            if source is not None:
                target.data.copy_(source)
    renamed.tie_weights()
    assert torch.equal(original(renamed), original())


def test_the_seed_decides_the_names():
    """The same seed gives the same names, another gives others."""
    module = modeling_of(zoo.on_meta(zoo.llama))
    first, again, other = (anonymise(module, seed).attribute_map for seed in (1, 1, 2))
    assert first == again
    assert set(first.values()).isdisjoint(other.values())
