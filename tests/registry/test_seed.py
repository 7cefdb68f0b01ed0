"""A new registry knows what the catalog knows."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from records_zoo import make_scan, proposal
from seeding import make_seeded

from loradar.catalog.entries import (
    Catalog,
    CatalogHeader,
    catalog_lines,
    list_catalogs,
    list_older,
    older_lines,
    read_all_older,
)
from loradar.domain.versions import Versions
from loradar.errors import NotRegistered
from loradar.registry import Registry, catalog_entry
from loradar.registry.catalogs import read_catalogs
from loradar.registry.mappings.renames import find_renames
from loradar.settings import Settings

HEADER = CatalogHeader("transformers", "5.24.0", "0.1.0", "0.21.2")


@pytest.fixture(autouse=True)
def catalogs():
    """Seed from the catalog that comes along, unlike every other test of the registry."""


@pytest.fixture(scope="session")
def seeded(tmp_path_factory):
    """A registry file seeded from everything."""
    return make_seeded(tmp_path_factory.mktemp("seeded-by-all") / "registry.sqlite3")


@pytest.fixture
def given_catalog(tmp_path, monkeypatch):
    """Return a function that makes a catalog of these scans the only one there is."""

    def give(*scans, header=HEADER):
        path = tmp_path / "transformers.jsonl"
        path.write_text("".join(line + "\n" for line in catalog_lines(header, map(catalog_entry, scans))), "utf-8")
        monkeypatch.setattr("loradar.registry.catalogs.list_catalogs", lambda: [path])
        monkeypatch.setattr("loradar.registry.catalogs.list_older", list)

    return give


def test_every_scan_of_the_catalog_is_registered(registry):
    """Architectures, slots and proposals, all of them; what was not scanned is not."""
    catalogs = read_catalogs(list_catalogs())
    older = [entry for one in read_all_older(list_older(), catalogs) for entry in one.catalog.entries]
    scanned = [entry for catalog in catalogs for entry in catalog.entries if entry.unscanned is None]
    counts = registry.info().counts
    assert counts["slots"] == sum(len(entry.slots) for entry in (*scanned, *older))
    for entry in scanned[::97]:
        detail = registry.get_architecture(entry.architecture.library, entry.architecture.name)
        assert (detail.architecture, detail.method) == (entry.architecture, entry.method)
        assert (detail.slots, detail.towers) == (entry.slots, entry.towers)
        now = entry.architecture.library_version
        own = [mapping for mapping in detail.revisions if mapping.versions and mapping.versions.hold(now)]
        assert {(m.peft_type, m.preset): (m.spec, m.reasons, m.matched, m.per_rank, m.fixed) for m in own} == {
            (p.peft_type, p.preset): (p.spec, p.reasons, p.matched, p.per_rank, p.fixed) for p in entry.proposals
        }
        assert {(m.peft_type, m.preset): m.verification for m in own} == {
            (p.peft_type, p.preset): check for p, check in zip(entry.proposals, entry.checks, strict=True)
        }


def test_a_seeded_architecture_is_looked_up(registry):
    """PEFT has no entry for olmo2; the catalog has."""
    found = registry.lookup("olmo2")
    assert found.spec.target_modules == ("q_proj", "v_proj")
    assert found.source.kind == "scanner"


@pytest.mark.parametrize("place", ["file", "postgres"])
def test_seeding_stores_what_storing_the_scan_would(request, tmp_path, given_catalog, place):
    """The same scan stored afterwards adds nothing, on either database."""
    url = f"sqlite:///{tmp_path}/r.sqlite3" if place == "file" else request.getfixturevalue("postgres_url")
    scan = make_scan("llama", proposals=(proposal("q_proj"), proposal("k_proj", preset="attention")))
    given_catalog(scan)
    with Registry.open(Settings(tmp_path, url)) as registry:
        report = registry.add_scan(scan)
        assert (report.added, report.serial) == ((), 1)
        assert [mapping.preset for mapping in report.unchanged] == ["default", "attention"]


def test_an_entry_of_peft_that_misses_loses_to_the_scan(tmp_path, given_catalog):
    """PEFT names c_attn for gpt2; where nothing is called that, the scanner's answer is given."""
    given_catalog(make_scan("gpt2"))
    with Registry.open(Settings(tmp_path, f"sqlite:///{tmp_path}/r.sqlite3")) as registry:
        assert registry.lookup("gpt2").source.kind == "scanner"
        with pytest.raises(NotRegistered, match=r"from peft .* is dead on transformers"):
            registry.lookup("gpt2", "IA3")


def test_an_entry_of_peft_that_fits_wins_over_the_scan(tmp_path, given_catalog):
    """Precedence stays: peft before scanner."""
    given_catalog(make_scan("llama"))
    with Registry.open(Settings(tmp_path, f"sqlite:///{tmp_path}/r.sqlite3")) as registry:
        found = registry.lookup("llama")
    assert (found.source.kind, found.verification.status) == ("peft", "unproven")


def test_checks_of_another_peft_are_not_used(tmp_path, given_catalog):
    """What a catalog says of PEFT 0.20's entries says nothing of those stored."""
    given_catalog(make_scan("gpt2"), header=CatalogHeader("transformers", "5.24.0", "0.1.0", "0.20.0"))
    with Registry.open(Settings(tmp_path, f"sqlite:///{tmp_path}/r.sqlite3")) as registry:
        assert registry.lookup("gpt2").verification is None


def test_dead_and_partial_entries_of_peft_are_known(registry):
    """llama4's reaches the vision tower; mixtral's IA3 entry names a layer transformers 5 does not have."""
    assert registry.lookup("llama4").source.kind == "scanner"
    assert registry.lookup("mixtral", "IA3").source.kind == "scanner"
    stated = registry.list_mappings("transformers", "peft", "5.24.0")
    (mixtral,) = (m for m in stated if (m.name, m.peft_type) == ("mixtral", "IA3"))
    assert (mixtral.verification.status, mixtral.verification.counts["w2"]) == ("partial", {})


def test_an_older_version_seeds_ranges(registry):
    """One mapping for both versions where nothing changed, one for each where names did, one where there is one."""
    assert registry.lookup("olmo2").versions == Versions("4.57.1", "5.24.0")
    assert registry.lookup("olmo2", library_version="4.57.1").verification.library_version == "4.57.1"
    then, now = (registry.lookup("vit", library_version=version) for version in ("4.57.1", "5.24.0"))
    assert (then.spec.target_modules, then.versions) == (("query", "value"), Versions("4.57.1", "4.57.1"))
    assert (now.spec.target_modules, now.versions) == (("q_proj", "v_proj"), Versions("5.23.0", "5.24.0"))
    assert registry.lookup("van").versions == Versions("4.57.1", "4.57.1")
    assert registry.lookup("mixtral", "IA3", library_version="4.57.1").verification.status == "live"
    olds = {way.rename.old for way in registry.get_architecture("transformers", "mixtral").renames}
    assert "model.layers.*.block_sparse_moe.experts.*.w1" in olds


def test_seeding_an_older_version_stores_what_storing_its_scan_would(tmp_path, given_catalog, monkeypatch):
    """Both scans stored afterwards add nothing, whatever the order they come in."""
    now = make_scan("llama", proposals=(proposal("q_proj"), proposal("up_proj", preset="mlp")))
    then = make_scan(
        "llama", library_version="4.57.1", proposals=(proposal("q_proj"), proposal("down_proj", preset="mlp"))
    )
    slot = now.slots[0]
    then = replace(then, slots=(replace(slot, pattern="model.blocks.*.self_attn.q_proj"),))
    given_catalog(now)
    base, older = (
        Catalog(replace(HEADER, library_version=scan.architecture.library_version), (catalog_entry(scan),))
        for scan in (now, then)
    )
    path = tmp_path / "older.jsonl"
    renames = {"llama": find_renames(then.slots, now.slots)}
    path.write_text("".join(line + "\n" for line in older_lines(older, base, renames)), "utf-8")
    monkeypatch.setattr("loradar.registry.catalogs.list_older", lambda: [path])
    with Registry.open(Settings(tmp_path, f"sqlite:///{tmp_path}/r.sqlite3")) as registry:
        assert [registry.add_scan(scan).serial for scan in (now, then, now)] == [1, 1, 1]
        assert registry.lookup("llama", preset="mlp", library_version="4.57.1").spec.target_modules == ("down_proj",)


def test_a_lookup_answers_in_an_empty_home():
    """In a process of its own, with the packaged registry or without it, as the source tree may be."""
    command = [sys.executable, "-m", "loradar.cli", "lookup", "olmo2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert json.loads(done.stdout)["source"]["kind"] == "scanner"
