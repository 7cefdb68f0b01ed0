"""Previews of statements: the layers of each name, as they are on record."""

from dataclasses import replace

import pytest
from records_zoo import make_scan

from loradar.domain.identities import Actor
from loradar.domain.layers import Slot
from loradar.domain.submissions import ListedLayer, Statement
from loradar.domain.targets import TargetMatcher
from loradar.errors import InvalidStatement

QUERIES = {"model.layers.*.self_attn.q_proj": 2}
VALUES = {"model.layers.*.self_attn.v_proj": 2}


def preview(registry, *targets, name="olmo2", peft_type="LORA", regex=None, **fields):
    """Return the preview of a statement."""
    statement = Statement("transformers", name, peft_type, "default", regex or targets or None, **fields)
    return registry.submissions.preview(statement)


@pytest.fixture
def stored(any_registry):
    """A registry that knows a small decoder, with the scanner's mapping for it."""
    attention = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
    slots = [
        Slot("language", role, "linear", f"model.layers.*.self_attn.{name}", 2, members="0-1:8")
        for name, role in attention.items()
    ]
    experts = Slot("language", "expert.down", "expert_parameter", "model.layers.*.experts.down_proj", 1, members="0:8")
    norm = Slot("language", "norm", "norm", "model.norm", 1, members="")
    any_registry.add_scan(replace(make_scan(), slots=(*slots, experts, norm)))
    return any_registry


def test_each_name_has_its_layers(stored):
    """With roles and towers; a name that matches nothing has similar ones."""
    found = preview(stored, "q_proj", "v_prj")
    query, value = found.targets
    assert (query.matched, query.layers, query.roles, query.towers) == (2, QUERIES, ("attention.query",), ("language",))
    assert (value.matched, value.near[0]) == (0, "v_proj")
    assert (found.known_by, found.layers, found.matched) == ("registry", QUERIES, 2)


def test_the_difference_is_from_what_lookups_return(stored):
    """By pattern: what is new, what goes."""
    found = preview(stored, "q_proj", "k_proj").difference
    assert found.mapping_id == stored.lookup("olmo2").id
    assert (found.more, found.less) == ({"model.layers.*.self_attn.k_proj": 2}, VALUES)


def test_every_field_is_looked_at(stored):
    """Exclusions take away; parameters, scaled layers and saved modules have their own matches."""
    found = preview(
        stored,
        "q_proj",
        exclude_modules=("layers.0.self_attn.q_proj",),
        target_parameters=("experts.down_proj",),
        modules_to_save=("norm", "scroe"),
        feedforward_modules=("q_proj",),
    )
    matched = {(one.stated_in, one.target): one.matched for one in found.targets}
    assert matched == {
        ("target_modules", "q_proj"): 1,
        ("target_parameters", "experts.down_proj"): 1,
        ("exclude_modules", "layers.0.self_attn.q_proj"): 1,
        ("feedforward_modules", "q_proj"): 2,
        ("modules_to_save", "norm"): 1,
        ("modules_to_save", "scroe"): 0,
    }
    assert found.matched == 2


def test_what_no_adapter_fits_is_told_apart(stored):
    """A module without a weight and a norm are there, and not similar names of something else."""
    attention, norm = preview(stored, "self_attn", "norm").targets
    assert (attention.matched, attention.unfit, attention.near) == (0, ("module",), ())
    assert (norm.matched, norm.unfit) == (0, ("norm",))


def test_a_regex_is_one_target_and_never_run_by_re(stored, monkeypatch):
    """RE2 alone matches it, and says what it rejects."""
    assert stored.lookup("olmo2").spec.target_modules == ("q_proj", "v_proj")  # so the served one is no regex
    monkeypatch.setattr(TargetMatcher, "_regex", property(lambda _: pytest.fail("re ran it")))
    (found,) = preview(stored, regex=r".*\.[qv]_proj").targets
    assert (found.matched, found.layers) == (4, QUERIES | VALUES)
    with pytest.raises(InvalidStatement, match="RE2"):
        preview(stored, regex=r"(a)\1")


def test_a_listing_stands_in_for_layers_that_are_not_on_record(any_registry):
    """As it is sent; without one, near architectures are named."""
    layers = (ListedLayer("net.0.mix", (8, 8)), ListedLayer("net.1.mix", (8, 8)))
    found = preview(any_registry, "mix", "mxi", name="mine", layers=layers)
    assert (found.known_by, found.layers, found.difference) == ("listing", {"net.*.mix": 2}, None)
    assert found.targets[1].near == ("mix",)
    unknown = preview(any_registry, "q_proj", name="LlamaForCausalLM")
    assert (unknown.known_by, unknown.targets, unknown.near) == (None, (), ("transformers:llama",))


def test_a_preview_stores_nothing(stored):
    """Nobody is named, and the registry stays as it is."""
    serial = stored.serial()
    preview(stored, "q_proj")
    assert (stored.serial(), stored.backend(Actor("ada", "contributor")).submissions()) == (serial, ())
