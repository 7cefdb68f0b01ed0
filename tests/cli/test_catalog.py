"""`loradar catalog update`: of a fake release of a library, only what is new or changed is scanned."""

import json
from dataclasses import replace

import pytest
from records_zoo import block_layers, make_scan, proposal

from loradar.catalog.entries import read_all_older, read_catalog
from loradar.cli import main
from loradar.discovery import sources
from loradar.domain.architectures import split_make_up
from loradar.domain.layers import Slot
from loradar.errors import ScanFailed

OLD, NEW = "5.23.0", "5.24.0"
# For each version: the digest of each architecture, and the name of its query.
RELEASES = {
    OLD: {"fake_changed": ("one", "q_proj"), "fake_gone": ("two", "q_proj"), "fake_same": ("three", "q_proj")},
    NEW: {"fake_changed": ("other", "query"), "fake_new": ("four", "q_proj"), "fake_same": ("three", "q_proj")},
}
BROKEN = "fake_broken"


class FakeLibrary:
    """Transformers with a few types; it counts the proved scans."""

    def __init__(self):
        self.version = OLD
        self.proved = []
        self.interrupt_at = None
        self.late = frozenset()

    def names(self, _library):
        """Return the types of the version, one of which does not build."""
        return [BROKEN, *RELEASES[self.version]]

    def scan(self, reference, method="auto", *, proved=False):  # noqa: ARG002 - as discovery.scan
        """Return a scan, or fail as a type that does not build."""
        name = reference.partition(":")[2]
        if name == self.interrupt_at and proved:
            raise KeyboardInterrupt
        if proved:
            self.proved.append(name)
        if name == BROKEN:
            message = "It does not build."
            raise ScanFailed(message)
        digest, query = RELEASES[self.version][split_make_up(name)[0]]
        layers = [
            replace(x, path=x.path.replace("q_proj", query), live=name not in self.late or None) for x in block_layers()
        ]
        slot = Slot("language", "attention.query", "linear", f"model.layers.*.self_attn.{query}", 2)
        found = make_scan(name, layers=layers, proposals=(proposal(query),), library_version=self.version)
        is_late = proved and name in self.late
        return replace(
            found,
            digest=None if is_late else digest,
            is_cut_short=is_late,
            slots=(slot,),
            proof="tried" if proved else None,
        )


class Inline:
    """A sandbox without processes."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run_each(self, function, names):
        """Run the function on each name."""
        return ((name, function(name)) for name in names)


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A fake transformers in place of the installed one; the packaged data is a folder of its own."""
    fake = FakeLibrary()
    real = sources.list_names
    monkeypatch.setattr("loradar.discovery.sources.list_names", fake.names)
    monkeypatch.setattr("loradar.discovery.list_architectures", lambda name: name == "transformers" or real(name))
    monkeypatch.setattr("loradar.discovery.catalog.scan_built", fake.scan)
    monkeypatch.setattr("loradar.sandbox.Sandbox", Inline)
    versions = {"loradar": "0.1.0"}
    monkeypatch.setattr("loradar.registry.catalogs.metadata.version", lambda name: versions.get(name, fake.version))
    monkeypatch.setattr("loradar.cli.catalog.PACKAGED", tmp_path / "data")
    monkeypatch.setattr("loradar.cli.catalog._list_make_ups", lambda _: [])
    monkeypatch.chdir(tmp_path)
    return fake


def update(*options, code=0):
    """Run the command on the fake library; it ends with an exit code."""
    with pytest.raises(SystemExit) as end:
        main(["catalog", "update", "transformers", *options])
    assert end.value.code == code


@pytest.fixture
def updated(library, tmp_path):
    """The catalog of the old version is made, and the new version is installed."""
    update()
    library.version = NEW
    library.proved.clear()
    names = {"library": "transformers", "releases": [OLD]}, {"name": "fake_same", "names": [[OLD, "aaaaaaaa"]]}
    history = tmp_path / "data" / "versions" / "names-transformers.jsonl"
    history.parent.mkdir(exist_ok=True)
    history.write_text("".join(json.dumps(line) + "\n" for line in names), "utf-8")
    return library


@pytest.fixture
def catalog(tmp_path):
    """The file of the packaged catalog."""
    return tmp_path / "data" / "catalog" / "transformers.jsonl"


def test_only_what_is_new_or_changed_is_scanned(updated, catalog):
    """The rest is carried over with its proof, as of the new version; what does not build is tried again."""
    update()
    assert sorted(updated.proved) == [BROKEN, "fake_changed", "fake_new"]
    found = read_catalog(catalog)
    assert found.header.library_version == NEW
    entries = {entry.architecture.name: entry for entry in found.entries}
    assert sorted(entries) == [BROKEN, "fake_changed", "fake_new", "fake_same"]
    same = entries["fake_same"]
    assert (same.proof, same.digest, same.architecture.library_version) == ("tried", "three", NEW)
    assert {check.library_version for check in same.checks} == {NEW}
    assert entries["fake_changed"].proposals[0].target_modules == ("query",)


@pytest.mark.usefixtures("updated")
def test_the_old_version_is_kept(catalog, tmp_path):
    """Its differences are in data/versions, and those of still older versions are read through it."""
    update()
    older = tmp_path / "data" / "versions" / f"transformers-{OLD}.jsonl"
    (found,) = read_all_older([older], [read_catalog(catalog)])
    entries = {entry.architecture.name: entry for entry in found.catalog.entries}
    assert sorted(entries) == [BROKEN, "fake_changed", "fake_gone", "fake_same"]
    assert entries["fake_changed"].proposals[0].target_modules == ("q_proj",)
    (rename,) = found.renames["fake_changed"]
    assert (rename.old, rename.new) == ("model.layers.*.self_attn.q_proj", "model.layers.*.self_attn.query")


@pytest.mark.usefixtures("updated")
def test_the_page_says_what_changed(tmp_path):
    """New, removed and renamed, in words."""
    update()
    page = (tmp_path / "docs" / "releases" / f"transformers-{NEW}.md").read_text("utf-8")
    for line in (
        "- 4 architectures: 1 new, 1 removed.",
        f"- 1 are built and run as in {OLD}; their proofs were carried over.",
        "- 1 were scanned again; the layers of 1 have other names or kinds.",
        "- `fake_gone`",
        "- `fake_changed`: targets `q_proj`, now `query`",
        "  - `model.layers.*.self_attn.q_proj` is now `model.layers.*.self_attn.query`",
        "- `fake_broken`: It does not build.",
    ):
        assert line in page.splitlines()
    assert "| `fake_new` | `Olmo2ForCausalLM` | `q_proj` |" in page


@pytest.mark.usefixtures("updated")
def test_the_history_of_names_goes_on(tmp_path):
    """A name has a new digest where its layers are called otherwise, and none where they are not."""
    update()
    lines = (tmp_path / "data" / "versions" / "names-transformers.jsonl").read_text("utf-8").splitlines()
    first, *rest = map(json.loads, lines)
    assert first["releases"] == [OLD, NEW]
    known = {line["name"]: [release for release, _ in line["names"]] for line in rest}
    assert known == {"fake_changed": [NEW], "fake_new": [NEW], "fake_same": [OLD]}


def test_an_interrupted_update_goes_on(updated, catalog):
    """What is done is not done again, and until the end the old catalog stays as it is."""
    before = catalog.read_bytes()
    updated.interrupt_at = "fake_new"
    update(code=130)
    assert catalog.read_bytes() == before
    updated.interrupt_at = None
    update()
    assert sorted(updated.proved) == [BROKEN, "fake_changed", "fake_new"]
    assert not catalog.with_name("transformers.jsonl.part").exists()


def test_nothing_is_scanned_twice_under_the_same_version(updated, catalog):
    """A second run is quick, and writes the same bytes."""
    update()
    before = catalog.read_bytes()
    updated.proved.clear()
    update()
    assert (updated.proved, catalog.read_bytes()) == ([], before)


def test_a_missing_digest_is_added_without_a_proof(library, catalog):
    """A catalog made before there were digests holds for the version it is of."""
    update()
    whole = catalog.read_text("utf-8")
    catalog.write_text(whole.replace('"digest":"three",', ""), "utf-8")
    assert catalog.read_text("utf-8") != whole
    library.proved.clear()
    update()
    assert (library.proved, catalog.read_text("utf-8")) == ([], whole)


def test_what_ran_out_of_time_is_tried_again(library, catalog):
    """The same version is enough, and its proof is kept from then on."""
    library.late = frozenset({"fake_same"})
    update()
    library.late = frozenset()
    library.proved.clear()
    update()
    assert library.proved == ["fake_same"]
    entries = {entry.architecture.name: entry for entry in read_catalog(catalog).entries}
    assert {check.status for check in entries["fake_same"].checks} == {"live"}


def test_make_ups_are_scanned_once_for_a_version(updated, tmp_path, monkeypatch):
    """One that is stated no longer goes, and one that is new is scanned; a new version scans all."""
    file = tmp_path / "data" / "make_ups" / "transformers.jsonl"

    def state(*names):
        monkeypatch.setattr("loradar.cli.catalog._list_make_ups", lambda _: names)
        updated.proved.clear()
        update()
        assert {entry.architecture.name for entry in read_catalog(file).entries} == {*names}
        return [name for name in updated.proved if "[" in name]

    assert state("fake_same[text=t5]") == ["fake_same[text=t5]"]
    assert state("fake_same[text=t5]", "fake_new[text=t5]") == ["fake_new[text=t5]"]
    assert state("fake_new[text=t5]") == []
    updated.version = OLD
    monkeypatch.setattr("loradar.cli.catalog._list_make_ups", lambda _: ["fake_same[text=t5]"])
    update("--out", "elsewhere")
    assert "fake_same[text=t5]" in updated.proved


def test_force_scans_everything(updated):
    """As after a change of the scanner."""
    update("--force")
    assert sorted(updated.proved) == [BROKEN, "fake_changed", "fake_new", "fake_same"]


@pytest.mark.usefixtures("updated")
def test_out_leaves_the_packaged_data_alone(catalog, tmp_path):
    """Everything is in the folder."""
    before = catalog.read_bytes()
    update("--out", "elsewhere")
    assert catalog.read_bytes() == before
    assert not (tmp_path / "docs").exists()
    files = sorted(str(file.relative_to(tmp_path / "elsewhere")) for file in tmp_path.rglob("elsewhere/*/*"))
    assert files == [
        "catalog/transformers.jsonl",
        f"releases/transformers-{NEW}.md",
        "versions/names-transformers.jsonl",
        f"versions/transformers-{OLD}.jsonl",
    ]


def test_an_older_library_does_not_replace_a_newer_catalog(updated, catalog, capsys):
    """The error has both versions; with --out the older version is compared with the newer."""
    update()
    updated.version = OLD
    before = catalog.read_bytes()
    update(code=2)
    assert "is of transformers 5.24.0, newer than the installed 5.23.0" in capsys.readouterr().err
    update("--out", "elsewhere")
    assert catalog.read_bytes() == before


def test_base_is_of_one_library(library, capsys, tmp_path):
    """It could not be told which."""
    assert library
    with pytest.raises(SystemExit):
        main(["catalog", "update", "--base", str(tmp_path / "x.jsonl")])
    assert "--base is the catalog of one library, not of 3" in capsys.readouterr().err
