"""Two mappings side by side, told from the slots of their architecture."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_zoo import make_scan, proposal

from loradar.domain.layers import Layer, Slot
from loradar.domain.targets import TargetSpec, find_hits
from loradar.errors import InvalidRequest, NotRegistered, UnknownMapping
from loradar.registry.mappings.compare import difference

BLOCK = "model.layers.*."
Q, V, UP, HEAD = f"{BLOCK}self_attn.q_proj", f"{BLOCK}self_attn.v_proj", f"{BLOCK}mlp.up_proj", "lm_head"
SLOTS = (
    Slot("language", "attention.query", "linear", Q, 2),
    Slot("language", "attention.value", "linear", V, 2),
    Slot("language", "mlp.up", "linear", UP, 2),
    Slot("language", "head", "linear", HEAD, 1),
    Slot("language", "expert.up", "expert_parameter", f"{BLOCK}experts.up", 2),
)


def tell(one: TargetSpec, other: TargetSpec):
    """Return what one reaches more and less than the other."""
    return difference(one, other, SLOTS)


def targets(value) -> TargetSpec:
    """Return a spec of these targets."""
    return TargetSpec(target_modules=value)


def test_layers_more_and_less_are_told_by_pattern(any_registry):
    """With their number, and with what it is compared to."""
    specs = (proposal("q_proj", "up_proj"), proposal("q_proj", "v_proj", preset="attention"))
    report = any_registry.add_scan(replace(make_scan(proposals=specs), slots=SLOTS))
    one, other = (mapping.id for mapping in report.added)
    found = any_registry.compare(one, other)
    assert (found.more, found.less, found.mapping_id) == ({UP: 2}, {V: 2}, other)
    assert found.against.startswith("scanner 0.1")
    back = any_registry.compare(other, one)
    assert (back.more, back.less) == ({V: 2}, {UP: 2})
    assert any_registry.compare(one, one).more == {}


def test_a_suffix_list_and_a_regex_are_compared_by_what_they_hit():
    """Not by how they are written."""
    assert tell(targets(("q_proj",)), targets(r".*\.self_attn\.q_proj")) == ({}, {})
    assert tell(targets(r".*\.(?:q|v)_proj"), targets(("q_proj",))) == ({V: 2}, {})


def test_what_is_excluded_is_not_reached_and_parameters_are_their_own():
    """PEFT's rule: exclusion is for modules, a bare parameter goes by target_parameters."""
    spec = TargetSpec(target_modules=("q_proj", "v_proj"), exclude_modules=("v_proj",))
    assert tell(spec, targets(("q_proj",))) == ({}, {})
    assert tell(TargetSpec(target_parameters=("experts.up",)), targets(("up",))) == ({f"{BLOCK}experts.up": 2}, {})


def test_a_spec_that_tells_indices_apart_reaches_some():
    """How many is not on record: 0 stands for that, and never the number of the whole slot."""
    some = targets(r"model\.layers\.1\.self_attn\.q_proj")
    assert tell(some, targets(("v_proj",))) == ({Q: 0}, {V: 2})
    assert tell(targets(("q_proj",)), some) == ({Q: 0}, {})
    assert tell(some, some) == ({}, {})
    assert tell(targets(r".*\.\d*[02468]\.mlp\.up_proj"), targets(())) == ({UP: 0}, {})
    assert tell(targets(("1.mlp.up_proj",)), targets(("0.mlp.up_proj",))) == ({UP: 0}, {UP: 0})
    assert tell(targets(r".*\.17\.mlp\.up_proj"), targets(())) == ({UP: 0}, {})


@given(
    wanted=st.sets(st.sampled_from(["q_proj", "v_proj", "up_proj", "lm_head"])),
    other=st.sets(st.sampled_from(["q_proj", "v_proj", "up_proj", "lm_head"])),
)
def test_the_difference_is_that_of_the_layers_themselves(wanted, other):
    """Told from patterns as it would be from every layer of a model."""
    layers = [Layer(slot.pattern.replace("*", str(n)), slot.kind, "", ()) for slot in SLOTS for n in range(slot.count)]
    one, two = (targets(tuple(sorted(names))) for names in (wanted, other))
    ours, theirs = ({layer.path for layer in find_hits(spec, layers)} for spec in (one, two))
    more, less = tell(one, two)
    assert sum(more.values()) == len(ours - theirs)
    assert sum(less.values()) == len(theirs - ours)


def test_what_cannot_be_compared_is_refused(registry):
    """Other architectures, ids nobody has, and what nobody scanned."""
    here, there = (registry.add_scan(make_scan(name)).added[0].id for name in ("here", "there"))
    with pytest.raises(InvalidRequest, match="transformers:here and transformers:there are different architectures"):
        registry.compare(here, there)
    with pytest.raises(UnknownMapping, match="sha256:0"):
        registry.compare(here, "sha256:" + "0" * 64)
    unscanned = registry.lookup("chatglm").id
    with pytest.raises(NotRegistered, match="transformers:chatglm was never scanned"):
        registry.compare(unscanned, unscanned)
