"""Repeated blocks with shared weights (``layer_replication``), held against the installed peft."""

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapter_zoo import adapter_parameters, randomise
from torch import nn
from zoo import MLP, Specimen, bert, llama

import loradar
from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig, MissingExtra

RANGES = [(0, 2), (0, 1), (1, 2)]
FIELDS = {"target_modules": ["q_proj", "v_proj"], "r": 4, "layer_replication": RANGES}
NETS: dict[str, tuple[Any, list[str]]] = {"llama": (llama, ["q_proj", "down_proj"]), "bert": (bert, ["query"])}


def both(kind: str) -> tuple[Specimen, nn.Module, PeftModel, Any]:
    """Return a base model, and the same adapter on its repeated blocks by loradar and by peft."""
    build, targets = NETS[kind]
    specimen = build()
    given = {**FIELDS, "target_modules": targets}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of a weight that is shared
        ours = inject(copy.deepcopy(specimen.model), LoraConfig(**given)).eval()
    theirs = peft.get_peft_model(copy.deepcopy(specimen.model), peft.LoraConfig(**given)).eval()
    randomise(ours)
    randomise(theirs)
    return specimen, specimen.model, ours, theirs


@pytest.mark.parametrize("kind", NETS)
def test_repeated_blocks_are_pefts(kind: str, tmp_path: Path) -> None:
    """Same tensors and outputs; files go both ways."""
    specimen, base, ours, theirs = both(kind)
    known = dict(adapter_parameters(theirs))
    assert dict(adapter_parameters(ours)).keys() == known.keys()
    expected = specimen(theirs)
    torch.testing.assert_close(specimen(ours), expected)
    assert ours.config.num_hidden_layers == theirs.config.num_hidden_layers == 4
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for name in ("ours", "theirs"):
        again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name)
        torch.testing.assert_close(specimen(again), expected)
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name).eval()
        torch.testing.assert_close(specimen(loaded), expected)


def test_blocks_share_weights_and_merge_apart() -> None:
    """Unmerged they cost no memory; merged, each has its own update."""
    specimen, _, ours, _ = both("llama")
    layers: Any = ours.get_base_model().model.layers
    assert layers[0].self_attn.q_proj.weight is layers[2].self_attn.q_proj.weight
    expected = specimen(ours)
    ours.merge_adapter()
    torch.testing.assert_close(specimen(ours), expected)
    ours.unmerge_adapter()
    assert layers[0].self_attn.q_proj.weight is layers[2].self_attn.q_proj.weight
    assert torch.equal(specimen(ours), expected)
    merged = ours.merge_and_unload()
    torch.testing.assert_close(specimen(merged), expected)
    assert len(merged.model.layers) == 4


def test_unloading_restores_the_blocks() -> None:
    """The very modules, their flags and the depth in the configuration; also of blocks that were left out."""
    specimen = llama()
    model: Any = specimen.model.eval()
    expected, blocks = specimen(model), model.model.layers
    flags = [(name, each.requires_grad) for name, each in model.named_parameters()]
    adapted = inject(model, LoraConfig(**{**FIELDS, "layer_replication": [(1, 2)]}))
    assert len(model.model.layers) == model.config.num_hidden_layers == 1
    assert adapted.unload() is model
    assert model.model.layers is blocks
    assert model.config.num_hidden_layers == 2
    assert [(name, each.requires_grad) for name, each in model.named_parameters()] == flags
    assert torch.equal(specimen(model), expected)


def test_a_trained_model_generates() -> None:
    """Blocks count on in the cache; the factors of each block have gradients of their own."""
    specimen = llama()
    adapted = loradar.get_peft_model(specimen.model, r=4, layer_replication=[(0, 2), (0, 2)])
    assert len(adapted.targeted_module_names) == 8
    ids = torch.arange(6)[None]
    adapted(input_ids=ids, labels=ids).loss.backward()
    gradients = [each.grad for name, each in adapter_parameters(adapted) if "lora_B" in name]
    assert len({float(each.sum()) for each in gradients}) == len(gradients) == 8
    assert adapted.eval().generate(ids, min_new_tokens=3, max_new_tokens=3, do_sample=False).shape == (1, 9)


def test_further_adapters_share_the_blocks(tmp_path: Path) -> None:
    """They are repeated once; an adapter for other blocks is rejected."""
    specimen, _, ours, _ = both("llama")
    ours.save_pretrained(tmp_path)
    expected = specimen(ours)
    ours.load_adapter(tmp_path, "again")
    ours.set_adapter("again")
    torch.testing.assert_close(specimen(ours), expected)
    assert len(ours.get_base_model().model.layers) == 4  # type: ignore[arg-type, union-attr]
    for value in (None, [(0, 1)]):
        with pytest.raises(InvalidConfig, match=r"are those of \[\[0, 2\], \[0, 1\], \[1, 2\]\]: give the same"):
            ours.add_adapter("other", LoraConfig(**{**FIELDS, "layer_replication": value}))


@pytest.mark.parametrize(
    ("build", "fields", "says"),
    [
        (
            lambda: llama().model,
            {"layer_replication": [(0, 9)]},
            "does not fit LlamaForCausalLM: index 2 is out of range",
        ),
        (lambda: llama().model, {"target_modules": ["nothing"]}, "No layer ends with 'nothing'"),
        (MLP, {"target_modules": ["seq.0"]}, "Could not locate the layers attribute"),
    ],
)
def test_a_model_stays_when_it_does_not_fit(build: Any, fields: dict[str, Any], says: str) -> None:
    """Its blocks and its depth included."""
    model = build()
    before = [*model.modules()]
    with pytest.raises(InvalidConfig, match=says):
        inject(model, LoraConfig(**{**FIELDS, **fields}))
    assert [*map(id, model.modules())] == [*map(id, before)]
    assert getattr(getattr(model, "config", None), "num_hidden_layers", 2) == 2


@pytest.mark.parametrize("value", [[], [(0,)], [(1, 1)], [(-1, 2)], [("0", 1)], [0, 1], "all", [(0, True)]])
def test_impossible_ranges_are_rejected(value: object) -> None:
    """In a line."""
    with pytest.raises(InvalidConfig, match="is no list of ranges of blocks"):
        LoraConfig(layer_replication=value)


def test_peft_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'loradar\[peft\]'"):
        inject(llama().model, LoraConfig(**FIELDS))
