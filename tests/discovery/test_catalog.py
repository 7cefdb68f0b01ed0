"""The catalog of a library: every name a line, in worker processes, within bounds, resumable."""

import json

import pytest

from loradar.discovery import Compact, How, list_architectures, scan_library, sources
from loradar.errors import InvalidRequest, UnknownLibrary
from loradar.registry import catalog_entry, catalog_header
from loradar.sandbox import Bounds, Sandbox

NAMES = ["olmo2", "dinat", "phi3"]
BY_NAME = [("dinat", False), ("olmo2", True), ("phi3", True)]


@pytest.fixture
def three_names(monkeypatch):
    """Pretend transformers knew three types, one of which does not build."""
    monkeypatch.setattr("loradar.discovery.sources.list_names", lambda _: NAMES)


def lines(path):
    """Return the names in a catalog file and whether each was scanned."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["architecture"]["name"], "unscanned" not in line) for line in found]


def compact():
    """Return what makes the compact form."""
    return Compact(catalog_header("transformers"), catalog_entry)


def run(function, names):
    """Run a function on each name in this process."""
    return ((name, function(name)) for name in names)


@pytest.mark.usefixtures("three_names")
def test_every_name_is_a_line_with_a_scan_or_a_reason(tmp_path):
    """What does not build is listed with its reason, never dropped; lines are sorted."""
    out = tmp_path / "catalog.jsonl"
    assert scan_library("transformers", out, run, how=How("names")) == (2, 1)
    assert lines(out) == BY_NAME
    assert "layers" in json.loads(out.read_text().splitlines()[1])


@pytest.mark.usefixtures("three_names")
@pytest.mark.parametrize("form", [None, "compact"])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path, form):
    """Whoever comes first."""
    written = []
    for workers in (1, 3):
        out = tmp_path / f"{workers}.jsonl"
        with Sandbox(Bounds(workers=workers), nice=0) as sandbox:
            scan_library("transformers", out, sandbox.run_each, how=How("names"), compact=compact() if form else None)
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("three_names")
def test_an_interrupted_run_goes_on(tmp_path):
    """Complete lines are kept; one cut off in the middle is done again."""
    out = tmp_path / "catalog.jsonl"
    kept = json.dumps({"architecture": {"name": "olmo2"}, "mark": "kept"})
    out.write_text(kept + "\n" + '{"architecture": {"na')
    assert scan_library("transformers", out, run, how=How("names")) == (2, 1)
    assert lines(out) == BY_NAME
    assert kept in out.read_text().splitlines()


def run_once(function, names):
    """Stop after the first name."""
    yield names[0], function(names[0])
    raise KeyboardInterrupt


@pytest.mark.usefixtures("three_names")
def test_an_interrupted_compact_run_goes_on_with_the_same_outcome(tmp_path):
    """The lines so far are beside the file, which appears whole."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "catalog.jsonl"
    scan_library("transformers", whole, run, how=How("names"), compact=compact())
    with pytest.raises(KeyboardInterrupt):
        scan_library("transformers", out, run_once, how=How("names"), compact=compact())
    assert not out.exists()
    assert len((tmp_path / "catalog.jsonl.part").read_text().splitlines()) == 2
    scan_library("transformers", out, run, how=How("names"), compact=compact())
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "catalog.jsonl.part").exists()


@pytest.mark.usefixtures("three_names")
def test_a_compact_run_does_not_go_on_from_another_method(tmp_path):
    """Lines of an older loradar, library or method are made again."""
    out = tmp_path / "catalog.jsonl"
    part = tmp_path / "catalog.jsonl.part"
    part.write_text('{"catalog":1,"method":"magic"}\n{"architecture":{"name":"olmo2"},"mark":"old"}\n')
    assert scan_library("transformers", out, run, how=How("names"), compact=compact()) == (2, 1)
    assert "mark" not in out.read_text()


@pytest.mark.usefixtures("three_names")
@pytest.mark.parametrize("form", [None, "compact"])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, form):
    """A wrong --out destroys nothing."""
    out = tmp_path / "notes.txt"
    out.write_text("shopping list\n")
    with pytest.raises(InvalidRequest, match=r"line 1 is no catalog line|no compact catalog"):
        scan_library("transformers", out, run, compact=compact() if form else None)
    assert out.read_text() == "shopping list\n"


@pytest.mark.usefixtures("three_names")
@pytest.mark.parametrize("form", [None, "compact"])
def test_a_worker_that_fails_leaves_a_line_with_the_reason(tmp_path, form):
    """The rest goes on; see ``tests/sandbox/test_pool.py`` for what makes a worker fail."""
    out = tmp_path / "catalog.jsonl"

    def run_some(function, names):
        return ((name, "It takes more than 8 GiB." if name == "phi3" else function(name)) for name in names)

    found = scan_library("transformers", out, run_some, how=How("names"), compact=compact() if form else None)
    assert found == (1, 2)
    assert json.loads(out.read_text().splitlines()[-1])["unscanned"] == "It takes more than 8 GiB."


def test_a_line_is_named_for_what_was_asked(tmp_path, monkeypatch):
    """Transformers has gpt-sw3 for checkpoints whose configuration says gpt2."""
    monkeypatch.setattr("loradar.discovery.sources.list_names", lambda _: ["gpt2", "gpt-sw3"])
    out = tmp_path / "catalog.jsonl"
    assert scan_library("transformers", out, run, how=How("names")) == (2, 0)
    assert lines(out) == [("gpt-sw3", True), ("gpt2", True)]


def test_libraries_that_can_be_listed():
    """Any other is answered with their names."""
    assert "olmo2" in list_architectures("transformers")
    assert "resnet50" in list_architectures("timm")
    with pytest.raises(UnknownLibrary, match=r"Unknown library 'tim'. Closest: 'timm'"):
        list_architectures("tim")


def test_explained_lets_our_own_errors_through():
    """Only foreign errors are wrapped."""
    with pytest.raises(UnknownLibrary), sources.explained("x"):
        raise UnknownLibrary("a", ["b"])
