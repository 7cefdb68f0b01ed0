"""Complete answers: the evidence of a scan for what was stated without, and what is recommended beside it."""

from dataclasses import replace

import pytest
from records_zoo import make_scan, proposal

from loradar.domain.layers import Coverage, Slot
from loradar.domain.mappings import Source
from loradar.domain.targets import Formula
from loradar.errors import InvalidRequest, NotRegistered

ROLES = {"q_proj": "attention.query", "v_proj": "attention.value", "o_proj": "attention.output", "up_proj": "mlp.up"}
SLOTS = tuple(
    Slot("language", role, "linear", f"model.layers.*.{name}", 2, live=True, members="0-1:3")
    for name, role in ROLES.items()
)


@pytest.fixture
def scanned(registry):
    """A registry with PEFT's tables and a scan of llama, its two blocks of four layers each."""
    blocks = (Coverage("model.layers.*", 2, 2),)
    narrow = replace(proposal("q_proj", "v_proj"), coverage=blocks)
    wide = replace(proposal(*ROLES, preset="all-linear"), coverage=blocks, formula=Formula(48, 0), matched=8)
    registry.add_scan(replace(make_scan("llama", proposals=(narrow, wide)), slots=SLOTS))
    return registry


def test_an_entry_of_peft_has_the_evidence_of_the_same_layers(scanned):
    """Size, coverage, reasons and number of layers are those of the scanner's mapping that matches the same slots."""
    found = scanned.lookup("llama")
    assert found.source.kind == "peft"
    assert (found.formula, found.matched, found.coverage) == (Formula(16, 0), 4, (Coverage("model.layers.*", 2, 2),))
    assert found.reasons == ("query and value by name",)


def test_an_entry_of_other_layers_is_sized_by_its_slots(scanned):
    """PEFT's entry matches what no scanned mapping does: coverage, reasons and size follow from the slots."""
    apart = replace(proposal("o_proj"), coverage=(Coverage("model.layers.*", 2, 2),))
    sized = tuple(replace(slot, per_rank=10) for slot in SLOTS)
    older = proposal("up_proj", preset="mlp")  # without the coverage that scans once did not have
    scanned.add_scan(replace(make_scan("mistral", proposals=(older, apart)), slots=sized))
    found = scanned.lookup("mistral")
    assert found.source.kind == "peft"
    assert (found.formula, found.matched, found.coverage) == (Formula(20, 0), 4, (Coverage("model.layers.*", 2, 2),))
    assert "model.layers.*.self_attn.q_proj is attention.query (2 layers)" not in found.reasons
    assert "model.layers.*.q_proj is attention.query (2 layers)" in found.reasons


def test_what_is_recommended_is_shown_beside_the_layers_selected(scanned):
    """Not beside those of the preset as a whole."""
    assert scanned.lookup("llama").recommended
    everything = replace(proposal(*ROLES, preset="everything"), matched=8)
    narrow, wide = proposal("q_proj", "v_proj"), proposal(*ROLES, preset="all-linear")
    scanned.add_scan(replace(make_scan("llama", proposals=(narrow, wide, everything)), slots=SLOTS))
    selected = scanned.lookup("llama", roles="attention.output")
    assert selected.spec.target_modules == ("o_proj",)
    assert selected.recommended.text.endswith("also adapts attention.query, attention.value, mlp.up")


@pytest.mark.parametrize(
    ("choice", "error", "says"),
    [
        ({"roles": "attention.*"}, NotRegistered, "not on record one by one. Scan it anew with: loradar scan olmo2"),
        ({"budget": "20M"}, InvalidRequest, "layers are not on record. Scan it, with the same options: loradar scan"),
    ],
)
def test_layers_that_an_earlier_version_did_not_record_are_an_error(registry, choice, error, says):
    """In one line with the scan to run; the preset itself is answered."""
    registry.add_scan(make_scan("olmo2"))
    assert registry.lookup("olmo2").spec.target_modules
    with pytest.raises(error, match=says) as caught:
        registry.lookup("olmo2", **choice)
    assert "\n" not in caught.value.message


def test_a_method_of_another_size_has_no_formula(scanned):
    """VERA shares LoRA's layers, not its size."""
    found = scanned.lookup("llama", "VERA")
    assert (found.source.kind, found.formula, found.matched) == ("peft", None, 4)
    assert found.coverage


def test_the_recommended_layers_are_those_of_all_linear_unless_others_are_stored(scanned):
    """Under the asked name, with the id of the mapping that stands for it."""
    found = scanned.lookup("llama", preset="recommended")
    assert (found.preset, found.spec.target_modules) == ("recommended", tuple(ROLES))
    assert found.id == scanned.lookup("llama", preset="all-linear").id
    own = replace(proposal("o_proj", preset="recommended"), reasons=("measured",))
    scan = make_scan("llama", proposals=(proposal("q_proj", "v_proj"), proposal(*ROLES, preset="all-linear"), own))
    scanned.add_scan(replace(scan, slots=SLOTS))
    assert scanned.lookup("llama", preset="recommended").spec.target_modules == ("o_proj",)


def test_what_is_recommended_is_shown_beside(scanned):
    """What it adapts beyond the answer, its size, the evidence and a recipe."""
    beside = scanned.lookup("llama").recommended
    assert (beside.family, beside.preset, beside.strength, beside.formula) == (
        "decoder",
        "recommended",
        "strong",
        Formula(48, 0),
    )
    assert beside.text.endswith("preset 'recommended' also adapts attention.output, mlp.up")
    assert beside.recipe.learning_rate.startswith("ten times")
    assert scanned.lookup("llama", preset="recommended").recommended.text.endswith("these are the recommended layers")
    assert scanned.lookup("llama", "IA3").recommended is None


def test_the_fast_lookup_knows_of_a_write(scanned):
    """Answers are kept only until the registry changes."""
    assert scanned.lookup("llama").formula == Formula(16, 0)
    sized = replace(proposal("q_proj", "v_proj"), target_modules=("v_proj", "q_proj"), formula=Formula(99, 0))
    scanned.add_scan(replace(make_scan("llama", proposals=(sized,)), slots=SLOTS))
    assert scanned.lookup("llama").formula == Formula(99, 0)


def test_a_preset_of_one_s_own(scanned, monkeypatch):
    """LORADAR_PRESET answers where no preset is named; a method without it keeps its default."""
    monkeypatch.setenv("LORADAR_PRESET", "recommended")
    assert scanned.lookup("llama").preset == "recommended"
    assert scanned.lookup("llama", preset="default").source == Source("peft", "0.21.2")
    assert scanned.lookup("llama", "IA3").preset == "default"
    monkeypatch.setenv("LORADAR_PRESET", "best")
    with pytest.raises(InvalidRequest, match="Invalid LORADAR_PRESET 'best': give one of 'default', 'recommended'"):
        scanned.lookup("llama")
