"""The history of layer names: made from measured releases, and read for a version."""

import importlib.util
from pathlib import Path

import pytest

from loradar.catalog.layer_names import NameHistory, find_history, history_lines

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_lines_hold_only_the_releases_with_other_names():
    """A release where a name was not measured has what both sides agree on; elsewhere it is not known."""
    measured = [
        {"release": "5.10.0", "known": ["a", "b", "c"], "names": {"a": "x", "b": "z", "c": "w"}},
        {"release": "4.57.1", "known": ["a", "b"], "names": {"a": "x", "b": "y"}},
        {"release": "5.2.0", "known": ["a", "b", "c"], "names": {"c": None}},
    ]
    assert [*history_lines("transformers", measured)] == [
        '{"library":"transformers","releases":["4.57.1","5.2.0","5.10.0"]}',
        '{"name":"a","names":[["4.57.1","x"]]}',
        '{"name":"b","names":[["4.57.1","y"],["5.2.0",null],["5.10.0","z"]]}',
        '{"name":"c","names":[["5.2.0",null],["5.10.0","w"]]}',
    ]


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("4.57.1", "old"),
        ("4.57.9", "old"),
        ("5.0", "old"),
        ("5.1.0", None),
        ("5.2.0", "new"),
        ("5.2.1", None),
        ("5.4.0", None),
        ("4.0.0", None),
        ("5.24.0", None),
    ],
)
def test_names_are_known_at_a_release_and_between_two_with_the_same(version, names):
    """Not beyond the releases measured, nor between two that differ."""
    changes = (("4.57.1", "old"), ("5.2.0", "new"), ("5.4.0", None))
    assert NameHistory(("4.57.1", "5.0.0", "5.2.0", "5.4.0", "5.23.0"), changes).names_at(version) == names


def test_the_packaged_history_knows_when_vit_was_renamed():
    """Version 5.0.0 still had the names of 4.57.1; 5.24.0 has others."""
    history = find_history("transformers", "vit")
    assert history.names_at("5.0.0") == history.names_at("4.57.1") != history.names_at("5.24.0")
    assert find_history("transformers", "vi") is None
    assert find_history("timm", "vit_base_patch16_224") is None


def test_one_release_is_measured_by_building_its_models():
    """The names of norms and embeddings count as well as those of linears."""
    spec = importlib.util.spec_from_file_location("layer_names", DOCS / "scripts/layer_names.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    history = find_history("transformers", "llama")
    assert script.digest("llama") == history.names_at("5.24.0")
    assert script.digest("no such type") is None
