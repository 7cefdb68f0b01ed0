"""Entries of PEFT's tables, tried on the real PEFT."""

import pytest
from peft.utils import constants

from loradar.adapters.peft_bridge.trial import run_trials

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
IA3 = "TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING"
FEEDFORWARD = "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING"
ADALORA = "TRANSFORMERS_MODELS_TO_ADALORA_TARGET_MODULES_MAPPING"


@pytest.fixture
def try_one(monkeypatch):
    """Return a function that tries one entry and returns the reason; PEFT's tables are given back as they were."""

    def run(name, peft_type, tables, matched=None):
        for table in tables:
            monkeypatch.setitem(getattr(constants, table), name, None)
        trial = {"name": name, "peft_type": peft_type, "tables": tables, "matched": matched}
        (result,) = run_trials([trial])
        assert (result["name"], result["peft_type"]) == (name, peft_type)
        return result["reason"]

    return run


@pytest.mark.parametrize(
    ("peft_type", "tables", "matched"),
    [
        ("LORA", {LORA: ["q_proj", "v_proj"]}, 64),
        ("LORA", {LORA: r".*\.(q|v)_proj"}, 64),
        ("IA3", {IA3: ["k_proj", "v_proj", "down_proj"], FEEDFORWARD: ["down_proj"]}, 96),
        ("ADALORA", {ADALORA: ["q_proj"]}, None),
    ],
)
def test_what_peft_takes_has_no_reason_against_it(try_one, peft_type, tables, matched):
    """The configuration says nothing but the method."""
    assert try_one("olmo2", peft_type, tables, matched) is None


def test_what_peft_refuses_is_told_in_its_words(try_one):
    """I-BERT's linears are of a class of their own; and names that are not there."""
    assert "rejects it: ValueError: Target module (QuantLinear()" in try_one("ibert", "LORA", {LORA: ["query"]})
    assert "rejects it: NoMatchingPeftModuleError: Target modules" in try_one("olmo2", "LORA", {LORA: ["no_such"]})


def test_a_regex_in_ia3s_table_is_taken_for_its_characters(try_one):
    """Why none is exported there; a PEFT that takes one would change this."""
    reason = try_one("olmo2", "IA3", {IA3: r".*\.k_proj", FEEDFORWARD: []})
    assert "rejects it: NoMatchingPeftModuleError: Target modules" in reason


def test_another_number_of_layers_is_a_reason(try_one):
    """Half of what is meant is not what was proved."""
    reason = try_one("olmo2", "LORA", {LORA: ["q_proj"]}, 64)
    assert reason.endswith("adapts 32 layers by it, and 64 are expected")


def test_what_cannot_be_built_cannot_be_tried(try_one):
    """A type only older versions of transformers know."""
    assert try_one("ernie_m", "LORA", {LORA: ["q_proj"]}) == "it cannot be tried: Unknown architecture 'ernie_m'"
