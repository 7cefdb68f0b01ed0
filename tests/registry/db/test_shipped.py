"""The packaged registry: it answers until the first write, which copies it, once and whole."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from functools import partial
from multiprocessing import get_context

import pytest
from records_zoo import make_scan, proposal

import loradar
from loradar.domain.identities import LOCAL
from loradar.errors import DatabaseUnusable, NotRegistered
from loradar.registry import Registry
from loradar.registry.catalogs import seed_digest
from loradar.registry.db import prepare, shipped
from loradar.registry.packing import make_shipped

pytestmark = pytest.mark.first_use
FIND = shipped.find_shipped


@pytest.fixture
def packaged(tmp_path, seeded, monkeypatch):
    """A packaged registry in a folder of its own, and an empty home."""
    path = tmp_path / "packaged" / "registry.sqlite3"
    path.parent.mkdir()
    shutil.copy(seeded, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    path.chmod(0o444)
    monkeypatch.setattr(shipped, "PACKAGED", path)
    monkeypatch.setattr(shipped, "find_shipped", FIND)
    return path


def own_scan():
    """A scan of an architecture of the user's own."""
    return make_scan("my_own", proposals=(proposal("q_proj"),))


@pytest.mark.usefixtures("packaged")
def test_reads_make_nothing(home, seeded_settings, tmp_path):
    """By name, in any spelling, and beyond lookups: as from a registry of the user's own."""
    queries = [("llama",), ("LlamaForCausalLM",), ("bert", "IA3")]
    asked = [loradar.lookup(*query) for query in queries]
    with Registry.open(seeded_settings) as registry:
        known = registry.get_architecture("transformers", "llama")
    shutil.move(home, tmp_path / "elsewhere")
    assert [loradar.lookup(*query) for query in queries] == asked
    with Registry.open(seeded_settings) as registry:
        assert registry.find("llama") == asked[0]
        assert registry.serial() == 1
        assert registry.get_architecture("transformers", "llama") == known
    with pytest.raises(NotRegistered, match="llama"):
        loradar.lookup("lllama")
    assert not home.exists()


@pytest.mark.usefixtures("packaged")
def test_the_first_write_makes_the_file(home, settings):
    """What was written wins afterwards, in every process that read the packaged registry before."""
    with pytest.raises(NotRegistered):
        loradar.lookup("my_own")
    with Registry.open(settings) as reader, Registry.open(settings) as writer:
        assert reader.find("my_own") is None
        assert writer.add_scan(own_scan()).serial == 2
        assert writer.find("my_own") == reader.find("my_own") != None  # noqa: E711
        assert reader.serial() == 2
        assert reader.find("llama").spec.target_modules == ("q_proj", "v_proj")
    assert loradar.lookup("my_own").spec.target_modules == ("q_proj",)
    assert {file.stat().st_mode & 0o777 for file in home.iterdir()} == {0o600}
    with closing(sqlite3.connect(home / "registry.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.usefixtures("packaged")
def test_a_file_that_vanishes_is_not_replaced(home, settings):
    """The packaged registry stands in for a file that was never made, not for one that is lost."""
    with Registry.open(settings) as registry:
        registry.make()
        shutil.move(home, home.with_name("lost"))
        with pytest.raises(DatabaseUnusable, match="not there any more"):
            registry.serial()


def test_a_registry_of_another_catalog_is_not_used(packaged):
    """As in a source tree whose catalog is newer than what was packaged from it."""
    assert shipped.find_shipped(seed_digest()) == packaged
    assert shipped.find_shipped("sha256:other") is None
    packaged.chmod(0o600)
    packaged.write_bytes(b"damaged")
    assert shipped.find_shipped(seed_digest()) is None


def test_it_is_made_once_for_a_catalog(tmp_path, monkeypatch):
    """And again if the catalog is another."""
    for name in ("list_catalogs", "list_older"):
        monkeypatch.setattr(f"loradar.registry.catalogs.{name}", list)
    out = tmp_path / "made.sqlite3"
    assert [make_shipped(out), make_shipped(out)] == [True, False]
    monkeypatch.setattr("loradar.registry.packing.seed_digest", lambda: "sha256:other")
    assert make_shipped(out)
    assert [file.name for file in tmp_path.glob("made*")] == ["made.sqlite3"]


@pytest.mark.usefixtures("packaged")
def test_first_writes_at_once_all_count(home, settings):
    """Of eight processes one makes the file; each adds a token, and none is lost."""
    processes = [start(partial(add_token, settings, f"person-{number}")) for number in range(8)]
    assert [status_of(process) for process in processes] == [0] * 8
    with Registry.open(settings) as registry:
        assert sorted(token.name for token in registry.backend(LOCAL).tokens()) == [f"person-{n}" for n in range(8)]
        assert registry.verify_log().faults == ()
    assert {file.name.partition("-")[0] for file in home.iterdir()} == {"registry.sqlite3"}


@pytest.mark.parametrize("moment", ["showing", "fsync", "link", "first_use_transaction"])
def test_a_first_write_that_is_killed_leaves_nothing_half(home, settings, packaged, moment):
    """Killed before any step, the file is whole or not there; the next write is like the first."""
    assert status_of(start(partial(add_token, settings, "killed", moment))) == -signal.SIGKILL
    assert (home / "registry.sqlite3").exists() == (moment == "first_use_transaction")
    assert loradar.lookup("llama").spec.target_modules == ("q_proj", "v_proj")
    for part in home.glob(".*.part"):
        os.utime(part, (0, 0))  # as hours later
    with Registry.open(settings) as registry:
        assert registry.add_scan(own_scan()).serial == 2
        assert registry.verify_log().faults == ()
    assert not [*home.glob(".*.part")]
    assert packaged.exists()


def add_token(settings, name, moment=None):
    """Add a token; be killed before a step of making the file."""
    if moment:
        owner = {"showing": shipped, "first_use_transaction": prepare}.get(moment, shipped.os)
        setattr(owner, moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with Registry.open(settings) as registry:
        registry.backend(LOCAL).create_token(name, "contributor")


def start(work):
    """Run a function in a process that is forked, since each would import for a second."""
    process = get_context("fork").Process(target=work)
    process.start()
    return process


def status_of(process):
    """Wait for a process, and return its exit status; minus the signal that killed it."""
    process.join()
    return process.exitcode
