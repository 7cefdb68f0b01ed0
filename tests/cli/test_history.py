"""``loradar history|changes|diff|snapshot|audit-log``, as a user meets them."""

import json
import sqlite3
from contextlib import closing

import pytest
from records_zoo import make_scan, proposal

from loradar.api import running
from loradar.domain.identities import Actor
from loradar.registry import Registry
from loradar.settings import Settings
from loradar.snapshots import check_snapshot

BOB = Actor("bob", "reviewer")


@pytest.fixture
def written(settings, monkeypatch):
    """A small registry in which a mapping was yanked, and the ids of its two."""
    for name in ("list_catalogs", "list_older"):
        monkeypatch.setattr(f"loradar.registry.catalogs.{name}", list)
    with Registry.open(settings) as registry:
        specs = (proposal("q_proj", "v_proj"), proposal("q_proj", preset="attention"))
        ids = [mapping.id for mapping in registry.add_scan(make_scan(proposals=specs)).added]
        registry.backend(BOB).yank(ids[0], "misses the second tower")
        registry.tokens.create("grace", "admin")
    return ids


def test_a_history_tells_who_when_and_why(run, written):
    """Every revision with its id and targets, and what was done to it."""
    code, out, _ = run("history", "olmo2")
    assert code == 0
    assert "LORA · default" in out
    assert ": misses the second tower" in out
    assert written[0] in out
    assert "bob  mapping.yank  reason: misses the second tower" in out
    assert "local  scan.store" in out
    told = json.loads(run("history", "olmo2", "--json")[1])
    assert [revision["version"] for revision in told["revisions"]] == [1, 2]
    assert told["architecture"] == {"library": "transformers", "name": "olmo2"}


def test_changes_are_listed_in_order(run, written):
    """What they are about as well, but for tokens; from a serial on, and not without end."""
    code, out, _ = run("changes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.split()[0].isdecimal()] == ["1", "2", "3", "4"]
    assert f"mapping:{written[0]}" in out
    assert "grace" not in out
    told = json.loads(run("changes", "--since", "1", "--limit", "2", "--json")[1])
    assert [change["serial"] for change in told["changes"]] == [2, 3]


def test_two_mappings_are_compared(run, written):
    """By id, or by its first digits."""
    code, out, _ = run("diff", written[0], written[1].removeprefix("sha256:")[:12])
    assert code == 0
    assert out.endswith("both match the same layers\n")
    assert json.loads(run("diff", *written, "--json")[1])["mapping_id"] == written[1]
    code, _, err = run("diff", written[0], "00000000")
    assert (code, "Unknown mapping '00000000'" in err) == (2, True)


def test_a_service_is_asked_the_same(run, written, settings, tmp_path):
    """With --url, word for word."""
    with running(settings) as url:
        for command in (("history", "olmo2"), ("changes",), ("diff", *written)):
            assert run(*command, "--url", url) == run(*command)
        local, remote = tmp_path / "local.jsonl", tmp_path / "remote.jsonl"
        assert run("snapshot", "--out", str(remote), "--url", url)[0] == 0
    assert run("snapshot", "--out", str(local))[0] == 0
    assert local.read_bytes().splitlines()[:-1] == remote.read_bytes().splitlines()[:-1]  # the times of issue differ


@pytest.mark.usefixtures("written")
def test_a_snapshot_is_written_and_said_to_be(run, tmp_path):
    """With the key that others hold it against."""
    out = tmp_path / "snapshot.jsonl"
    code, printed, _ = run("snapshot", "--out", str(out), "--json")
    told = json.loads(printed)
    assert (code, told["file"], told["serial"]) == (0, str(out), 4)
    with out.open("rb") as file:
        assert check_snapshot(file, told["key"]).architectures == told["architectures"]
    assert f"architectures at serial 4, signed with {told['key']}" in run("snapshot", "--out", str(out))[1]
    code, _, err = run("snapshot", "--out", str(tmp_path / "nowhere" / "x"))
    assert (code, "cannot be written" in err) == (2, True)


@pytest.mark.usefixtures("written")
def test_a_whole_log_is_said_to_be(run):
    """With its head, which somebody else may keep."""
    code, out, _ = run("audit-log", "verify")
    assert (code, out.splitlines()[0]) == (0, "whole: 4 changes up to serial 4")
    head = out.split()[-1]
    told = json.loads(run("audit-log", "verify", "--expect", head, "--json")[1])
    assert told == {"entries": 4, "serial": 4, "head": head, "faults": []}


@pytest.mark.usefixtures("written")
def test_a_broken_log_ends_with_1(run, settings: Settings):
    """What is wrong is told, as text and as JSON."""
    with closing(sqlite3.connect(settings.home / "registry.sqlite3")) as connection, connection:
        connection.execute("UPDATE changes SET actor = 'eve' WHERE serial = 3")
    code, out, err = run("audit-log", "verify")
    assert (code, out) == (1, "")
    assert err.startswith("Error: The log of changes is broken: serial 3 was altered")
    code, out, _ = run("audit-log", "verify", "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"], error["details"]["serial"]) == (1, "audit_log_broken", 4)
    assert len(error["details"]["faults"]) == 1


@pytest.mark.usefixtures("written")
def test_a_digest_that_is_not_in_the_log_breaks_it(run):
    """Even if all links hold together."""
    code, _, err = run("audit-log", "verify", "--expect", "sha256:" + "0" * 64)
    assert (code, "kept elsewhere" in err) == (1, True)
