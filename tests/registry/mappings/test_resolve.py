"""Architectures built the same: who they are, and what they answer for each other."""

import pytest
from records_zoo import make_scan, proposal

from loradar.errors import NotRegistered, UnknownPreset

NAMED, OTHER_NAMED = "sha256:" + "2" * 64, "sha256:" + "3" * 64
NAMELESS = "sha256:" + "4" * 64


@pytest.fixture
def family(registry):
    """An architecture, one with the same names, one with the same structure under others, and a stranger."""
    registry.add_scan(make_scan("one", fingerprint=NAMED, structure=NAMELESS))
    registry.add_scan(make_scan("renamed", fingerprint=OTHER_NAMED, structure=NAMELESS))
    registry.add_scan(make_scan("same", fingerprint=NAMED, structure=NAMELESS))
    registry.add_scan(make_scan("stranger"))
    return registry


def test_a_structure_is_stored_and_told(family):
    """It comes back with the architecture, and null where nobody traced it."""
    assert family.get_architecture("transformers", "one").architecture.structure == NAMELESS
    assert family.get_architecture("transformers", "stranger").architecture.structure is None


def test_those_with_the_same_names_come_first(family):
    """Then those with other names; the architecture itself and strangers are not among them."""
    for name, others in {"one": ["same", "renamed"], "renamed": ["one", "same"], "stranger": []}.items():
        seen = family.get_architecture("transformers", name).architecture
        assert [other.name for other in family.list_alike(seen)] == others


def test_every_architecture_of_a_structure_answers_once_the_best_first(family):
    """Llama's entry is PEFT's, the others' are the scanner's; one known partial is left out."""
    family.add_scan(make_scan("llama", fingerprint=NAMED, structure=NAMELESS))
    parts = {"layers": make_scan().layers[:1], "proposals": (proposal("q_proj"),)}  # PEFT's v_proj hits nothing
    family.add_scan(make_scan("mistral", fingerprint=NAMED, structure=NAMELESS, **parts))
    found = family.list_by_structure(NAMELESS)
    assert [(mapping.name, mapping.source.kind) for mapping in found] == [
        ("llama", "peft"),
        ("mistral", "scanner"),
        ("one", "scanner"),
        ("renamed", "scanner"),
        ("same", "scanner"),
    ]
    assert family.list_by_structure("sha256:ff") == family.list_by_structure(NAMELESS, "IA4") == ()
    with pytest.raises(UnknownPreset, match="Unknown preset"):
        family.list_by_structure(NAMELESS, preset="none")


def test_a_miss_names_one_of_the_same_fingerprint_that_has_it(family):
    """The way out is a lookup under the other's name; a structure alone does not do, its names differ."""
    family.add_scan(make_scan("same", fingerprint=NAMED, proposals=(proposal("up_proj", preset="mlp"),)))
    with pytest.raises(NotRegistered, match="'transformers:same' has it, and the same layers under the same names"):
        family.lookup("one", preset="mlp")
    with pytest.raises(NotRegistered) as caught:
        family.lookup("renamed", preset="mlp")
    assert "has it" not in caught.value.message
