"""The catalog of a library: every name a line, resumable."""

import json

import pytest

from loradar.discovery import list_architectures, scan_library, sources
from loradar.errors import InvalidRequest, UnknownLibrary


@pytest.fixture
def three_names(monkeypatch):
    """Pretend transformers knew three types, one of which does not build."""
    monkeypatch.setattr("loradar.discovery.sources.list_names", lambda _: ["olmo2", "autoformer", "phi3"])


def lines(path):
    """Return the names in a catalog file and whether each was scanned."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["architecture"]["name"], "unscanned" not in line) for line in found]


@pytest.mark.usefixtures("three_names")
def test_every_name_is_a_line_with_a_scan_or_a_reason(tmp_path):
    """What does not build is listed with its reason, never dropped."""
    out = tmp_path / "catalog.jsonl"
    assert scan_library("transformers", out) == (2, 1)
    assert lines(out) == [("olmo2", True), ("autoformer", False), ("phi3", True)]


@pytest.mark.usefixtures("three_names")
def test_an_interrupted_run_goes_on(tmp_path):
    """Complete lines are kept; one cut off in the middle is done again."""
    out = tmp_path / "catalog.jsonl"
    kept = json.dumps({"architecture": {"name": "olmo2"}, "mark": "kept"})
    out.write_text(kept + "\n" + '{"architecture": {"na')
    assert scan_library("transformers", out) == (2, 1)
    assert lines(out) == [("olmo2", True), ("autoformer", False), ("phi3", True)]
    assert out.read_text().startswith(kept)


@pytest.mark.usefixtures("three_names")
def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
    """A wrong --out destroys nothing."""
    out = tmp_path / "notes.txt"
    out.write_text("shopping list\n")
    with pytest.raises(InvalidRequest, match="line 1 is no catalog line"):
        scan_library("transformers", out)
    assert out.read_text() == "shopping list\n"


def test_libraries_that_can_be_listed():
    """Two for now; any other is answered with their names."""
    assert "olmo2" in list_architectures("transformers")
    assert "resnet50" in list_architectures("timm")
    with pytest.raises(UnknownLibrary, match=r"Unknown library 'tim'. Closest: 'timm'"):
        list_architectures("tim")


def test_explained_lets_our_own_errors_through():
    """Only foreign errors are wrapped."""
    with pytest.raises(UnknownLibrary), sources.explained("x"):
        raise UnknownLibrary("a", ["b"])
