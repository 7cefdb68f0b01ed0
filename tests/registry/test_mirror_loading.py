"""A mirror: what it loads is equal to its source, or nothing changes."""

import gzip
import json
import os
import random
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from records_zoo import VERSION, block_layers, make_scan, proposal
from sqlalchemy import event, text

from loradar import snapshots
from loradar.domain.architectures import ModelPart
from loradar.domain.identities import LOCAL
from loradar.errors import ReadOnly, SignatureInvalid, SnapshotRejected
from loradar.registry import Registry
from loradar.registry.db import audit_log
from loradar.registry.mirror import copied_rows, snapshot_writing
from loradar.settings import Settings
from loradar.snapshots import Signer, canonical_line, write_snapshot

POINTS = 20
"""Random places at which a file or a load is cut off."""


@pytest.fixture
def signer(tmp_path):
    """Who signs for the source."""
    return Signer.of(Settings(tmp_path / "source", "sqlite://"))


@pytest.fixture
def source(registry):
    """A registry with changes of every kind."""
    parts = (ModelPart("text", "llama", is_free=True, prefix="model.language_model"),)
    scan = make_scan("blip")
    registry.add_scan(type(scan)(**{**{f: getattr(scan, f) for f in scan.__slots__}, "parts": parts}))
    for version in (VERSION, "6.0.0"):
        registry.add_scan(make_scan(library_version=version))
    registry.add_scan(make_scan("llama", layers=block_layers(), proposals=()))  # verifies what PEFT states
    registry.backend(LOCAL).yank(registry.lookup("olmo2").id, "wrong")
    registry.tokens.create("grace", "admin")
    return registry


@pytest.fixture
def mirror(tmp_path):
    """An open registry that is to be a mirror."""
    with Registry.open(Settings(tmp_path, f"sqlite:///{tmp_path}/mirror.sqlite3"), is_seeded=False) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def any_mirror(request, tmp_path):
    """One on either database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("mirror")
        return
    with Registry.open(Settings(tmp_path, request.getfixturevalue("postgres_url")), is_seeded=False) as opened:
        yield opened


@pytest.fixture
def write(source, signer, tmp_path):
    """A function that writes a snapshot of the source to a new file and returns its path."""
    names = (tmp_path / f"{number}.jsonl" for number in range(100))

    def write_file(since=None, registry=source, valid=snapshots.VALID):
        path = next(names)
        with registry.snapshot(since) as lines:
            write_snapshot(path, lines, signer, valid)
        return path

    return write_file


def export(registry):
    """Return the canonical export of a registry."""
    with registry.snapshot() as lines:
        return [*lines]


def test_a_mirror_equals_its_source(source, any_mirror, write, signer):
    """In its canonical export, and in its own log, which verifies; lookups answer the same."""
    report = any_mirror.mirror.load(write(), signer.key)
    assert (report.serial, report.is_new) == (source.serial(), True)
    assert export(any_mirror) == export(source)
    assert any_mirror.verify_log().faults == ()
    assert any_mirror.verify_log().head == source.verify_log().head
    assert any_mirror.lookup("llama") == source.lookup("llama")
    assert any_mirror.list_changes(3) == source.list_changes(3)
    assert any_mirror.list_history("transformers", "olmo2") == source.list_history("transformers", "olmo2")


def test_a_mirror_keeps_up(source, any_mirror, write, signer, monkeypatch):
    """Each of its states is one of the source's, whatever is written at once."""
    monkeypatch.setattr(copied_rows, "MOST_ROWS", 1)
    monkeypatch.setattr(snapshot_writing, "PAGE", 2)
    any_mirror.mirror.load(write(), signer.key)
    steps = (
        lambda: source.add_scan(make_scan("late")),
        lambda: source.add_scan(make_scan("late", proposals=(proposal("q_proj"),))),
        lambda: source.backend(LOCAL).yank(source.lookup("late").id, "wrong"),
        lambda: source.tokens.create("ada", "contributor"),
        lambda: None,
    )
    for step in steps:
        since = source.serial()
        step()
        report = any_mirror.mirror.load(write(since), signer.key)
        assert (report.snapshot.since, any_mirror.serial()) == (since, source.serial())
        assert export(any_mirror) == export(source)
        assert any_mirror.verify_log().faults == ()


def test_what_follows_from_an_older_serial_is_taken(source, mirror, write, signer):
    """The changes that the mirror has already are compared, not written twice; those of a later one do not fit."""
    first = source.serial()
    mirror.mirror.load(write(), signer.key)
    source.add_scan(make_scan("one"))
    mirror.mirror.load(write(first), signer.key)
    source.add_scan(make_scan("two"))
    mirror.mirror.load(write(first), signer.key)
    assert export(mirror) == export(source)
    before = source.serial()
    source.add_scan(make_scan("three"))
    gap = write(before)
    source.add_scan(make_scan("four"))
    with pytest.raises(SnapshotRejected, match=rf"only the changes after serial {before + 1}, and this mirror is at"):
        mirror.mirror.load(write(before + 1), signer.key)
    mirror.mirror.load(gap, signer.key)


def test_a_whole_one_is_loaded_over_what_is_there(source, any_mirror, write, signer):
    """Also if nothing was missed; compressed too, and twice."""
    any_mirror.mirror.load(write(), signer.key)
    source.add_scan(make_scan("late"))
    path = write()
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert any_mirror.mirror.load(packed, signer.key).is_new
    assert export(any_mirror) == export(source)
    assert not any_mirror.mirror.load(path, signer.key).is_new


def test_what_is_older_is_rejected_and_nothing_changes(source, mirror, write, signer, monkeypatch):
    """An earlier serial, an earlier issue of the same, one that has expired, and another key."""
    older, first = write(), write()
    source.add_scan(make_scan("late"))
    replayed, newest = write(), write()
    mirror.mirror.load(newest, signer.key)
    before = export(mirror), mirror.mirror.state()
    other = Signer.of(Settings(newest.parent / "other", "sqlite://"))
    with pytest.raises(SignatureInvalid, match="signed with another key"):
        mirror.mirror.load(newest, other.key)
    with source.snapshot() as lines:
        write_snapshot(newest, lines, other)
    for path, key, words in (
        (older, signer.key, "is of serial"),
        (first, signer.key, "is of serial"),
        (replayed, signer.key, "was loaded already"),
        (write(valid=timedelta(0)), signer.key, "expired at"),
        (newest, other.key, "follows the key"),
    ):
        with pytest.raises(SnapshotRejected, match=words):
            mirror.mirror.load(path, key)
        assert (export(mirror), mirror.mirror.state()) == before

    class Later(datetime):
        """A clock eight days ahead."""

        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(days=8)

    fresh = write()
    monkeypatch.setattr(snapshots, "datetime", Later)
    with pytest.raises(SnapshotRejected, match="expired at"):
        mirror.mirror.load(fresh, signer.key)
    assert (export(mirror), mirror.mirror.state()) == before


def test_a_file_cut_off_anywhere_changes_nothing(source, mirror, write, signer, tmp_path):
    """At random places, plain and compressed; the whole one then makes the mirror equal."""
    mirror.mirror.load(write(), signer.key)
    source.add_scan(make_scan("late"))
    path = write()
    whole, before = path.read_bytes(), export(mirror)
    for content in (whole, gzip.compress(whole, 1)):
        for place in random.sample(range(len(content) - 1), POINTS):
            cut = tmp_path / "cut"
            cut.write_bytes(content[:place])
            with pytest.raises(SignatureInvalid):
                mirror.mirror.load(cut, signer.key)
    assert export(mirror) == before
    mirror.mirror.load(path, signer.key)
    assert export(mirror) == export(source)


def test_a_load_killed_anywhere_changes_nothing(source, any_mirror, write, signer):
    """By the system, before random statements: the next one finds the mirror as it was, and makes it equal."""
    any_mirror.mirror.load(write(), signer.key)
    source.add_scan(make_scan("late"))
    path, before = write(), export(any_mirror)
    count, points = 0, POINTS if any_mirror._database.file else POINTS // 4
    for place in [*sorted(random.sample(range(3, 30), points)), None]:
        child = os.fork()
        if not child:
            _load_in_child(any_mirror.url, path, signer.key, place)
        _, status = os.waitpid(child, 0)
        if place is None:
            assert os.waitstatus_to_exitcode(status) == 0
        elif os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            count += 1
            assert export(any_mirror) == before
    assert count >= points // 2
    assert export(any_mirror) == export(source)


def _load_in_child(url, path, key, place):
    """Load a snapshot in a forked process that kills itself before a statement."""
    code = 1
    try:
        registry = Registry.open(Settings(path.parent, url), is_seeded=False)
        executed = 0

        @event.listens_for(registry._database.engine, "before_cursor_execute")
        def count(*_):
            nonlocal executed
            executed += 1
            if executed == place:
                os.kill(os.getpid(), signal.SIGKILL)

        registry.mirror.load(path, key)
        code = 0
    finally:
        os._exit(code)


def alter(path, change, signer):
    """Change the lines of a snapshot and sign it anew: what a faulty source would send."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()[:-1]]
    change(lines)
    write_snapshot(path, map(canonical_line, lines), signer)
    return path


def _line(lines, kind, place=-1):
    return [line[kind] for line in lines if kind in line][place]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: _line(lines, "change").update(actor="eve"), "does not have the digest"),
        (lambda lines: lines.remove({"change": _line(lines, "change", 2)}), "does not follow on entry"),
        (lambda lines: lines.remove({"change": _line(lines, "change")}), "ends with entry"),
        (lambda lines: lines[0].update(format=1), "as format 1, not 2"),
        (lambda lines: lines[-1].update(weight=1), r"unknown or missing fields \['weight'\]"),
        (lambda lines: lines[-1].pop("slots"), r"unknown or missing fields \['slots'\]"),
        (lambda lines: _line(lines, "revisions")[0].update(revision=9), "not that of the content"),
        (lambda lines: _line(lines, "revisions")[0].update(created_at="once"), "ValueError"),
        (lambda lines: lines.append({"unknown": 1}), "unknown or missing fields"),
        (lambda lines: lines.append(None), "TypeError"),
    ],
)
def test_what_is_signed_and_wrong_is_rejected(source, mirror, write, signer, change, words):  # noqa: PLR0913, PLR0917
    """The signature says who sent it, not that it is right; nothing changes."""
    mirror.mirror.load(write(), signer.key)
    before = export(mirror)
    source.add_scan(make_scan("late"))
    with pytest.raises(SnapshotRejected, match=words):
        mirror.mirror.load(alter(write(), change, signer), signer.key)
    assert export(mirror) == before


def test_a_source_with_another_past_is_rejected_until_reset(source, mirror, write, signer, tmp_path):
    """It was put back and went on: serials are higher, and the mirror's last entry is not in its log."""
    start = tmp_path / "set-back.sqlite3"
    with closing(sqlite3.connect(source._database.file)) as connection, closing(sqlite3.connect(start)) as copy:
        connection.backup(copy)
    source.add_scan(make_scan("lost"))
    mirror.mirror.load(write(), signer.key)
    before = export(mirror)
    with Registry.open(Settings(tmp_path, f"sqlite:///{start}")) as other:
        since = other.serial()
        for name in ("one", "two"):
            other.add_scan(make_scan(name))
        for wanted in (None, since, since + 1):
            with pytest.raises(SnapshotRejected, match=r"log has another entry .* --reset"):
                mirror.mirror.load(write(wanted, other), signer.key)
            assert export(mirror) == before
        with pytest.raises(SnapshotRejected, match="does not follow its source yet"):
            mirror.mirror.load(write(since, other), signer.key, is_reset=True)
        mirror.mirror.load(write(None, other), signer.key, is_reset=True)
        assert export(mirror) == export(other)


def test_a_registry_with_changes_of_its_own_becomes_no_mirror(source, write, signer, tmp_path):
    """They would be lost; what loradar seeded is not its own."""
    with Registry.open(Settings(tmp_path / "own", f"sqlite:///{tmp_path}/own.sqlite3")) as own:
        path = write()
        own.add_scan(make_scan("mine"))
        with pytest.raises(SnapshotRejected, match="1 changes of its own"):
            own.mirror.load(path, signer.key, is_reset=True)
        assert own.lookup("mine").name == "mine"
    with Registry.open(Settings(tmp_path / "seeded", f"sqlite:///{tmp_path}/seeded.sqlite3")) as seeded:
        seeded.mirror.load(path, signer.key)
        assert export(seeded) == export(source)


def test_a_mirror_takes_no_writes(any_mirror, write, signer):
    """They would be lost with the next snapshot, or stand against its log; a newer loradar does not seed it either."""
    any_mirror.mirror.load(write(), signer.key)
    before = export(any_mirror)
    for change in (
        lambda: any_mirror.add_scan(make_scan("mine")),
        lambda: any_mirror.tokens.create("ada", "admin"),
        lambda: any_mirror.backend(LOCAL).yank(any_mirror.lookup("llama").id, "wrong"),
    ):
        with pytest.raises(ReadOnly, match="mirrors another one"):
            change()
    with any_mirror._database.write_unlogged() as connection:
        connection.execute(text("DELETE FROM seeds"))
    with Registry.open(Settings(write().parent, any_mirror.url)) as again:
        assert export(again) == before
        assert again.lookup("llama").name == "llama"


def test_what_is_withheld_is_accepted_in_a_copy_alone(source, mirror, write, signer):
    """Elsewhere, an entry without its details was altered."""
    mirror.mirror.load(write(), signer.key)
    with source._database.write_unlogged() as connection:
        connection.execute(text("""UPDATE changes SET details = '{"withheld"\\:true}' WHERE action = 'token.create'"""))
    assert "was altered" in source.verify_log().faults[0]
    with mirror._database.write_unlogged() as connection:
        connection.execute(text("""UPDATE changes SET details = '{"withheld"\\:true}' WHERE action = 'mapping.yank'"""))
    assert "was altered" in mirror.verify_log().faults[0]
    assert audit_log.WITHHELD == {"withheld": True}


def test_a_file_without_end_is_rejected(tmp_path, signer, mirror, monkeypatch):
    """Zeros packed a thousandfold, in one line or in many: no more is read than a snapshot may have."""
    monkeypatch.setattr(snapshots, "LARGEST_LINE", 1 << 16)
    monkeypatch.setattr(snapshots, "LARGEST_SNAPSHOT", 1 << 18)
    bomb = tmp_path / "bomb"
    for content in (bytes(1 << 24), b"{}\n" * (1 << 20)):
        bomb.write_bytes(gzip.compress(content))
        with pytest.raises(SnapshotRejected, match="larger than any snapshot"):
            mirror.mirror.load(bomb, signer.key)


def test_it_says_when_it_expires(mirror, write, signer):
    """For whoever watches over it."""
    assert mirror.mirror.state() is None
    mirror.mirror.load(write(), signer.key)
    state = mirror.mirror.state()
    assert datetime.fromisoformat(state.expires) - datetime.fromisoformat(state.issued) == snapshots.VALID
    assert datetime.fromisoformat(state.loaded_at) <= datetime.now(UTC)
