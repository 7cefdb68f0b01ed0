"""The registry's entry, matched with a model's own layers, decides as the scan of the whole model does.

A sample of every library, by default; ``LORADAR_EVERY=1`` tries every architecture of the catalog.
"""

import os
import sqlite3
from dataclasses import replace

import pytest
import torch
from packaged import packaged_catalogs
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel

import loradar
from loradar.adapters import targets
from loradar.adapters.targets import decide_for, decide_unscanned, scan_known
from loradar.discovery import sources
from loradar.domain.targets import find_hits
from loradar.references import Reference

STEPS = {"transformers": 53, "timm": 137, "diffusers": 40}
"""Every how manieth architecture is tried, or the next one that is quick."""
MOST_LAYERS = 400
SLOW = ("slanet", "slanext")  # a forward decodes 500 steps one by one: 15 s, which a scan of a user's cuts short
EVERY = int(os.environ.get("LORADAR_EVERY", "0"))
NAMED = {
    "transformers": ["llama", "bert", "dinov3_vit", "ctrl", "detr", "qwen3_moe", "mimi", "vitpose"],
    "timm": ["mvitv2_small_cls"],
    "diffusers": [],
}
"""Tried always: heads that make patches, roles by index, layers proved dead, no settings to compare."""

reads_the_registry = pytest.mark.usefixtures("read_settings")


def list_references():
    """Yield the references tried."""
    for catalog in packaged_catalogs():
        library = catalog.header.library
        scanned, step = [entry for entry in catalog.entries if entry.method], EVERY or STEPS[library]
        stretches = [scanned[start : start + step] for start in range(2, len(scanned), step)]
        chosen = [near[0] if EVERY else next(filter(is_quick, near), near[0]) for near in stretches]
        for name in dict.fromkeys([*(entry.architecture.name for entry in chosen), *NAMED[library]]):
            yield f"{library}:{name}"


def is_quick(entry):
    """Return whether an architecture has so few layers that it is scanned in a second or two."""
    return entry.architecture.name not in SLOW and sum(slot.count for slot in entry.slots) <= MOST_LAYERS


@reads_the_registry
@pytest.mark.parametrize("reference", [*list_references()])
def test_the_entry_decides_as_the_scan_does(reference):
    """Step, targets, heads to save, reasons and layers, for every method and preset that has a proposal."""
    model = sources.build(Reference.parse(reference))
    found = scan_known(model)
    for proposal in found.proposals:
        fast = decide_unscanned(model, proposal.preset, proposal.peft_type)
        if fast is None:
            continue  # the scan decides
        full = decide_for(found, proposal.peft_type, proposal.preset)
        assert (fast.step, fast.spec, fast.says, fast.reasons) == (full.step, full.spec, full.says, full.reasons)
        assert [layer.path for layer in fast.layers] == [layer.path for layer in find_hits(full.spec, found.layers)]


UNSCANNED = {
    "llama": 64,
    "bert": 24,
    "dinov3_vit": 24,
    "t5": 36,
    "mimi": 48,  # as recommended: query and value reach less than half of the blocks
    "timm:vit_base_patch16_224": 12,
    "diffusers:FluxTransformer2DModel": 152,
}


@reads_the_registry
@pytest.mark.parametrize(("reference", "count"), UNSCANNED.items())
def test_no_forward_runs_where_the_entry_fits(reference, count, monkeypatch):
    """A proof on record holds for a model of the same class, version and settings."""

    def scan(*_, **__):
        raise AssertionError("the model was scanned")

    monkeypatch.setattr(targets, "scan_module", scan)
    adapted = loradar.get_peft_model(sources.build(Reference.parse(reference)))
    assert adapted.decision.step == "registry"
    assert len(adapted.targeted_module_names) == count


def build_llama(model_class=LlamaForCausalLM, **settings):
    """Build a narrow llama on the meta device."""
    narrow = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 64}
    with torch.device("meta"):
        return model_class(LlamaConfig(**{"num_hidden_layers": 2, **narrow, **settings}))


@reads_the_registry
@pytest.mark.parametrize("model_class", [LlamaForCausalLM, LlamaModel, LlamaForSequenceClassification])
def test_another_depth_and_another_head_fit(model_class):
    """A base model's paths are shorter; a fresh head is saved."""
    decision = targets.decide_unscanned(build_llama(model_class))
    assert decision is not None
    assert len(decision.layers) == 4
    scanned = targets.decide_for(targets.scan_known(build_llama(model_class)))
    assert (decision.recommended.preset, decision.recommended.formula) == (scanned.recommended.preset, None)
    assert decision == replace(scanned, layers=decision.layers, recommended=decision.recommended)


@reads_the_registry
def test_blocks_of_another_make_are_scanned():
    """One block lost its attention's query: the entry was made for blocks that all have one."""
    model = build_llama()
    model.model.layers[1].self_attn.q_proj = nn.Identity()
    assert targets.decide_unscanned(model) is None


def test_the_registry_is_read_anew_once_it_is_written(registry):
    """An entry is kept for as long as the file stays as it is."""
    assert targets.decide_unscanned(build_llama()) is not None
    with sqlite3.connect(registry.url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE verifications SET status = 'partial'")
    assert targets.decide_unscanned(build_llama()) is None


@reads_the_registry
def test_a_layer_tells_its_role_and_where_that_is_from():
    """The role on record, whether adapters learn there, then what its name says."""
    (layer, _, _, _) = targets.decide_unscanned(build_llama()).layers
    assert (layer.role, layer.live) == ("attention.query", True)
    assert [item.by for item in layer.evidence] == ["registry", "names"]
    assert "attention.query in the scan of transformers:llama" in layer.evidence[0].says
