"""The nearest architectures: which they are, in which order, and that they are those of now."""

from dataclasses import replace

import pytest
from records_zoo import make_scan

from loradar.domain.layers import Slot
from loradar.domain.mappings import Neighbour
from loradar.errors import NotRegistered, UnknownArchitecture
from loradar.registry import Registry
from loradar.schema import from_json, to_json


def slots(*roles, kind="linear", tower="language", say="{}"):
    """Return a slot per role, named after it."""
    return tuple(Slot(tower, role, kind, f"model.layers.*.{say.format(role)}", 2) for role in roles)


ATTENTION = ("attention.query", "attention.key", "attention.value", "attention.output")
DENSE = slots(*ATTENTION, "mlp.up", "mlp.down")


def add(registry, name, held, fingerprint=None):
    """Register an architecture with these slots."""
    digest = fingerprint or f"sha256:{name:0>64}"
    registry.add_scan(replace(make_scan(name, fingerprint=digest, proposals=()), slots=held))


@pytest.fixture
def near(registry):
    """A registry with an architecture, and a function that names those near it in a library of their own."""
    add(registry, "asked", DENSE)

    def names(limit=10):
        return [neighbour.architecture.name for neighbour in registry.list_similar("transformers", "asked", limit)]

    return names


def test_the_nearest_come_first(registry, near):
    """By what is in both: a role more is less of a difference than three for one, and that less than another tower."""
    add(registry, "far", slots("mixer.input", "mixer.output"))
    add(registry, "gated", (*DENSE, *slots("mlp.gate")))
    add(registry, "vision", slots(*ATTENTION, "mlp.up", "mlp.down", tower="vision"))
    add(registry, "fused", slots("attention.qkv", "attention.output", "mlp.up", "mlp.down"))
    assert near() == ["gated", "fused", "vision", "far"]
    assert near(2) == ["gated", "fused"]


def test_names_decide_between_equals(registry, near):
    """The same slots under the same names are nearer than under others."""
    add(registry, "a_stranger_in_names", slots(*ATTENTION, "mlp.up", "mlp.down", say="{}_x"))
    add(registry, "z_namesake", DENSE)
    assert near() == ["z_namesake", "a_stranger_in_names"]


def test_one_fingerprint_is_one_line(registry, near):
    """The name most like the one asked for stands for the others, and the one asked for is not among them."""
    for name in ("other", "asked_large", "another"):
        add(registry, name, DENSE, f"sha256:{'asked':0>64}")
    (found,) = registry.list_similar("transformers", "asked")
    assert near() == ["asked_large"]
    assert found == Neighbour(found.architecture, 1.0, ("transformers:another", "transformers:other"), ())


def test_heads_and_splits_of_a_pattern_do_not_count(registry, near):
    """Another task's class is as near; so is one of whose layers some are known live."""
    add(registry, "headed", (*DENSE, *slots("head")))
    add(registry, "split", (*DENSE, replace(DENSE[0], live=True)))
    assert [n.similarity for n in registry.list_similar("transformers", "asked")] == [1.0, 1.0]
    assert sorted(near()) == ["headed", "split"]


def test_what_is_added_is_found(registry, near):
    """The registry of now is compared, not that of the first question."""
    assert near() == []
    add(registry, "late", DENSE)
    assert near() == ["late"]


def test_what_cannot_be_compared_is_refused(registry):
    """A name nobody knows; one that only PEFT knows, with the command that would help."""
    with pytest.raises(UnknownArchitecture, match="Closest: 'llama'"):
        registry.list_similar("transformers", "lama")
    with pytest.raises(NotRegistered, match=r"transformers:llama was never scanned.*loradar scan llama --store"):
        registry.list_similar("transformers", "llama")


@pytest.mark.parametrize("url", ["sqlite", "postgres"])
def test_both_databases_say_the_same(request, settings, url):
    """The statement is one both understand."""
    if url == "postgres":
        settings = replace(settings, database_url=request.getfixturevalue("postgres_url"))
    with Registry.open(settings) as registry:
        add(registry, "one", DENSE)
        add(registry, "two", (*DENSE, *slots("mlp.gate")))
        (found,) = registry.list_similar("transformers", "one")
    assert (found.architecture.name, found.differences) == ("two", ("adds mlp.gate: 1 slot",))
    assert from_json(Neighbour, to_json(found)) == found
