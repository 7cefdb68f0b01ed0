"""Renames between two versions, on slots that transformers 4.57.1 and 5.23.0 really have, and on made ones."""

import json
from pathlib import Path

import pytest

from loradar.domain.layers import Slot
from loradar.registry.mappings.renames import find_renames, rename_pattern

SCANNED = json.loads((Path(__file__).parent.parent.parent / "golden" / "slots.json").read_text("utf-8"))


def slots_of(name, version):
    """Return the slots of a real architecture."""
    return tuple(Slot(*slot) for slot in SCANNED[name][version])


def edges(name):
    """Return the renames of a real architecture as pairs."""
    return {(one.old, one.new) for one in find_renames(slots_of(name, "4.57.1"), slots_of(name, "5.23.0"))}


def slot(pattern, role="other", tower="language", kind="linear", count=2):
    """Return a slot."""
    return Slot(tower, role, kind, pattern, count)


def test_vit_s_projections_have_other_names():
    """The leaf changed, and what stands above the blocks."""
    where = "vit.encoder.layer.*.attention.attention"
    assert {
        (f"{where}.query", "vit.layers.*.attention.q_proj"),
        (f"{where}.value", "vit.layers.*.attention.v_proj"),
        ("vit.encoder.layer", "vit.layers"),
    } <= edges("vit")


def test_mixtral_s_experts_were_fused():
    """Two become one, and one keeps its place among the fused."""
    where = "model.layers.*.block_sparse_moe.experts.*"
    assert {
        (f"{where}.w1", "model.layers.*.mlp.experts.gate_up_proj"),
        (f"{where}.w3", "model.layers.*.mlp.experts.gate_up_proj"),
        (f"{where}.w2", "model.layers.*.mlp.experts.down_proj"),
        ("model.layers.*.block_sparse_moe", "model.layers.*.mlp"),
    } == edges("mixtral")


def test_a_prefix_is_one_rename():
    """The vision tower of llava lost a level; everything below is told by that one line."""
    assert edges("llava") == {("model.vision_tower.vision_model", "model.vision_tower")}


@pytest.mark.parametrize("name", sorted(SCANNED))
def test_renames_lead_every_old_name_to_one_that_is_there(name):
    """No layer of the older version goes astray, and every layer of the newer one is reached."""
    old, new = slots_of(name, "4.57.1"), slots_of(name, "5.23.0")
    found = find_renames(old, new)
    reached = {path for one in old for path in rename_pattern(one.pattern, found)}
    assert reached == {one.pattern for one in new}
    assert all(one.says for one in found)


@pytest.mark.parametrize("name", sorted(SCANNED))
def test_nothing_is_renamed_within_a_version(name):
    """The same slots have no renames."""
    slots = slots_of(name, "5.23.0")
    assert find_renames(slots, slots) == ()


def test_a_tower_moves_under_another_prefix():
    """As transformers 4.52 turned ``language_model.model`` round; the head goes elsewhere."""
    names = ("layers.*.self_attn.q_proj", "layers.*.mlp.up_proj", "embed_tokens")
    old = [*(slot(f"language_model.model.{name}", name) for name in names), slot("language_model.lm_head", "head")]
    new = [*(slot(f"model.language_model.{name}", name) for name in names), slot("lm_head", "head")]
    found = {(one.old, one.new) for one in find_renames(old, new)}
    assert found == {("language_model.model", "model.language_model"), ("language_model.lm_head", "lm_head")}


def test_a_fused_projection_is_taken_apart():
    """One old name stands for several new ones."""
    old = [slot("h.*.attn.c_attn", "attention.qkv"), slot("h.*.attn.c_proj", "attention.output")]
    parts = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
    new = [slot(f"h.*.attn.{name}", f"attention.{role}") for name, role in parts.items()]
    found = find_renames(old, [*new, slot("h.*.attn.c_proj", "attention.output")])
    assert rename_pattern("h.*.attn.c_attn", found) == ("h.*.attn.k_proj", "h.*.attn.q_proj", "h.*.attn.v_proj")
    assert rename_pattern("h.*.attn.c_proj", found) == ("h.*.attn.c_proj",)


def test_what_stayed_is_not_swept_along():
    """A layer under a renamed prefix that kept its path gets a line of its own."""
    old = [slot("a.x.q", "attention.query"), slot("a.x.v", "attention.value"), slot("a.x.kept", "head")]
    new = [slot("b.x.q", "attention.query"), slot("b.x.v", "attention.value"), slot("a.x.kept", "head")]
    found = find_renames(old, new)
    assert rename_pattern("a.x.kept", found) == ("a.x.kept",)
    assert rename_pattern("a.x.q", found) == ("b.x.q",)


def test_what_has_no_successor_has_no_rename():
    """A new role, another tower or a layer outside the blocks is no new name of one inside."""
    old = [slot("layers.*.mlp.up", "mlp.up"), slot("layers.*.norm", "norm", kind="norm")]
    new = [slot("layers.*.attn.q", "attention.query"), slot("final_norm", "norm", kind="norm", count=1)]
    assert find_renames(old, new) == ()
