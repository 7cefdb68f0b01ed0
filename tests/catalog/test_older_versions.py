"""What an older version differs in: written from two catalogs, read back whole."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from packaged import packaged_catalogs
from records_zoo import make_scan, proposal

from loradar.catalog.entries import (
    Catalog,
    CatalogEntry,
    CatalogHeader,
    list_catalogs,
    list_older,
    older_lines,
    read_all_older,
    read_older,
)
from loradar.domain.architectures import Architecture
from loradar.domain.versions import Rename
from loradar.errors import InvalidRequest
from loradar.registry import catalog_entry, compare_catalog

DOCS = Path(__file__).parent.parent.parent / "docs"
OLD, NEW = "4.57.1", "5.23.0"
UNSCANNED = CatalogEntry(Architecture("transformers", "broken"), unscanned="It does not build.")


def entry(name, version=NEW, target="q_proj"):
    """Return an entry that proposes one target."""
    return catalog_entry(make_scan(name, library_version=version, proposals=(proposal(target),)))


def catalog(version, *entries):
    """Return a catalog of a version."""
    return Catalog(CatalogHeader("transformers", version, "0.1.0", "0.21.2"), entries)


BASE = catalog(NEW, entry("changed", target="k_proj"), entry("new"), entry("same"))
OLDER = catalog(OLD, UNSCANNED, entry("changed", OLD), entry("gone", OLD), entry("same", OLD))


@pytest.fixture
def file(tmp_path):
    """The file that tells what OLDER differs from BASE in."""
    path = tmp_path / "older.jsonl"
    renames = {"changed": (Rename("a", "b", "why"),), "same": ()}
    path.write_text("".join(line + "\n" for line in older_lines(OLDER, BASE, renames)), "utf-8")
    return path


def test_what_is_written_is_read(file):
    """Every entry is back, with slots only where no newer version tells them; so are the renames."""
    found = read_older(file, [BASE])
    entries = {one.architecture.name: one for one in found.catalog.entries}
    assert found.catalog.header == OLDER.header
    assert entries["gone"] == OLDER.entries[2]
    assert entries["broken"] == UNSCANNED
    for name, whole in (("changed", OLDER.entries[1]), ("same", OLDER.entries[3])):
        assert replace(entries[name], towers=None) == replace(whole, slots=(), towers=None)
    assert set(entries) == {"broken", "changed", "gone", "same"}
    (way,) = found.renames["changed"]
    assert (way.from_version, way.to_version, way.rename) == (OLD, NEW, Rename("a", "b", "why"))
    assert set(found.renames) == {"changed"}


def test_what_is_the_same_takes_no_line(file):
    """It stands in the header alone."""
    lines = file.read_text("utf-8").splitlines()
    assert '"same":["same"]' in lines[0]
    assert not any('"name":"same"' in line for line in lines)


def test_a_file_on_another_catalog_is_no_news(file):
    """What was compared with 5.23.0 says nothing of a catalog of 5.24.0."""
    assert read_older(file, [replace(BASE, header=replace(BASE.header, library_version="5.24.0"))]) is None
    assert read_older(file, []) is None


def test_a_file_that_does_not_fit_is_refused(file):
    """A name the catalog must have and has not is named."""
    with pytest.raises(InvalidRequest, match=r"does not fit the catalog \(KeyError: 'same'\). Make it again"):
        read_older(file, [replace(BASE, entries=BASE.entries[:2])])


def test_only_an_older_version_is_compared():
    """The catalog itself is not older than itself."""
    ours = next(file for file in list_catalogs() if file.name == "transformers.jsonl")
    with pytest.raises(InvalidRequest, match=r"is of transformers 5\.24\.0, but the catalog is of 5\.24\.0"):
        compare_catalog(ours)


def test_the_files_that_come_along_fit_the_catalog():
    """Each is read with the catalogs as they are, and its renames are those of architectures both have."""
    catalogs = packaged_catalogs()
    names = {one.architecture.name for known in catalogs for one in known.entries}
    found_all = read_all_older(list_older(), catalogs)
    assert 0 < len(found_all) == len(list_older()), "one was compared with a catalog that is no longer here"
    for found in found_all:
        assert set(found.renames) <= names
        assert len([one for one in found.catalog.entries if one.unscanned is None]) > 300


def test_the_page_shows_today_s_renames():
    """docs/registry/versions.md is what docs/scripts/renames.py makes of the files."""
    spec = importlib.util.spec_from_file_location("renames_page", DOCS / "scripts/renames.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text("utf-8")
    assert script.page(text) == text
    assert "| `" in text.partition(script.START)[2]
