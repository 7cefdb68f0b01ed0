"""Backups of a registry that is in use, and the way back; whatever happens, what stood is still there."""

import os
import signal
import sqlite3
import stat
import threading
from contextlib import closing

import pytest
from patience import patience
from records_zoo import make_scan

from loradar.domain.identities import LOCAL
from loradar.errors import Conflict, DatabaseBusy, DatabaseUnusable, InvalidRequest
from loradar.registry import Registry, back_up, check_database, restore
from loradar.registry.db import HEAD, backups
from loradar.settings import Settings


@pytest.fixture
def used(registry):
    """An open registry with a change of its own, the path of its file and a path for a backup."""
    registry.add_scan(make_scan("early"))
    return registry, registry._database.file, registry._database.file.with_name("backup.sqlite3")


def export(registry):
    """Return the canonical export of a registry."""
    with registry.snapshot() as lines:
        return [*lines]


def names_beside(path):
    """Return the names of the files beside one, but SQLite's own."""
    return sorted(one.name for one in path.parent.iterdir() if not one.name.endswith(("-wal", "-shm")))


def test_a_backup_is_one_state_while_others_write(used):
    """Its log is whole, and writers do not wait for it; only its owner can read the file."""
    registry, _, out = used
    is_over = threading.Event()

    def write():
        for number in range(1000):
            registry.add_scan(make_scan(f"meanwhile{number}"))
            if is_over.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    serials = [back_up(registry.url, out, is_forced=True).serial for _ in range(3)]
    is_over.set()
    writer.join(patience())
    assert serials == sorted(serials)
    assert check_database(f"sqlite:///{out}").faults == []
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with closing(sqlite3.connect(out)) as connection:  # in one file, which needs no log beside it
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_what_was_restored_is_what_was_backed_up(used):
    """A registry that is open sees it at once, and goes on writing; the content before is kept."""
    registry, file, out = used
    back_up(registry.url, out)
    before = export(registry)
    lost = registry.add_scan(make_scan("lost")).added[0]
    assert registry.lookup("lost").id == lost.id
    copy = restore(registry.url, out, is_forced=True)
    assert export(registry) == before
    assert registry.find("lost") is None
    with Registry.open(Settings(file.parent, f"sqlite:///{copy.kept}")) as kept:
        assert kept.lookup("lost").id == lost.id
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    registry.add_scan(make_scan("after"))
    assert registry.verify_log().faults == ()


def test_a_serial_that_stands_for_another_content_is_noticed(used):
    """Lookups and lists that are kept in memory are of the state before, whatever its serial."""
    registry, _, out = used
    watch = registry.watch()
    back_up(registry.url, out)
    registry.backend(LOCAL).yank(registry.lookup("early").id, "wrong")
    serial, state = registry.serial(), watch.renew()
    assert registry.find("early") is None
    restore(registry.url, out, is_forced=True)
    registry.add_scan(make_scan("other"))
    assert registry.serial() == serial
    assert not watch.is_unchanged()
    assert watch.renew() != state
    assert registry.find("early") is not None


def test_nothing_is_replaced_unless_forced(used):
    """Neither a backup nor a registry; a registry is no backup of itself."""
    registry, file, out = used
    back_up(registry.url, out)
    with pytest.raises(Conflict, match="--force"):
        back_up(registry.url, out)
    with pytest.raises(Conflict, match="--force"):
        restore(registry.url, out)
    with pytest.raises(InvalidRequest, match="the registry itself"):
        back_up(registry.url, file, is_forced=True)
    with pytest.raises(DatabaseUnusable, match="it is not there"):
        back_up(f"sqlite:///{out}.none", out, is_forced=True)
    assert names_beside(file) == ["backup.sqlite3", "registry.sqlite3"]
    assert registry.lookup("early").name == "early"


def test_a_new_place_is_filled(used, tmp_path):
    """With its folders, and ready to be used."""
    registry, _, out = used
    back_up(registry.url, out)
    url = f"sqlite:///{tmp_path}/new/place/registry.sqlite3"
    assert restore(url, out).kept is None
    with Registry.open(Settings(tmp_path, url)) as opened:
        assert export(opened) == export(registry)
        opened.add_scan(make_scan("after"))


@pytest.mark.parametrize("spoil", ["no database", "another", "cut off", "altered", "newer"])
def test_what_is_no_sound_backup_is_not_restored(used, spoil):
    """It is checked before anything is touched."""
    registry, file, out = used
    back_up(registry.url, out)
    before = export(registry)
    if spoil == "no database":
        out.write_bytes(b"spoiled" * 1000)
    elif spoil == "cut off":
        os.truncate(out, out.stat().st_size // 2)
    else:
        statement = {
            "another": "DROP TABLE serial",
            "altered": "UPDATE changes SET actor = 'eve'",
            "newer": "UPDATE alembic_version SET version_num = '9999'",
        }[spoil]
        with closing(sqlite3.connect(out)) as connection, connection:
            connection.execute(statement)
    with pytest.raises(DatabaseUnusable, match="cannot be used"):
        restore(registry.url, out, is_forced=True)
    assert export(registry) == before
    assert names_beside(file) == ["backup.sqlite3", "registry.sqlite3"]


def test_an_older_backup_is_upgraded_on_the_way(used, tmp_path):
    """The file itself stays as it is."""
    registry, _, out = used
    back_up(registry.url, out)
    with closing(sqlite3.connect(out)) as connection, connection:
        connection.execute("DROP TABLE mirror")
        connection.execute("UPDATE alembic_version SET version_num = '0012'")
    url = f"sqlite:///{tmp_path}/new.sqlite3"
    restore(url, out)
    assert check_database(url).faults == []
    assert check_database(f"sqlite:///{out}").faults == [
        f"schema: revision 0012, of an older loradar; this one has {HEAD}"
    ]


def test_a_damaged_registry_gives_way(used, tmp_path):
    """It is moved aside as it is, with its log, for whoever can still read some of it."""
    registry, file, out = used
    back_up(registry.url, out)
    before = export(registry)
    registry.close()
    file.write_bytes(b"spoiled" * 1000)
    file.with_name(f"{file.name}-wal").write_bytes(b"log")
    copy = restore(registry.url, out, is_forced=True)
    assert copy.kept.read_bytes() == b"spoiled" * 1000
    assert copy.kept.with_name(f"{copy.kept.name}-wal").read_bytes() == b"log"
    with Registry.open(Settings(tmp_path, registry.url)) as opened:
        assert export(opened) == before


@pytest.mark.parametrize(
    ("work", "point"),
    [
        ("back up", "_require_sound"),
        ("back up", "_sync"),
        ("restore", "_require_sound"),
        ("restore", "_keep"),
        ("fill", "_sync"),
    ],
)
def test_whatever_is_killed_what_stood_is_still_there(used, tmp_path, work, point):
    """Before it is checked, kept aside or written down: and done again, it is done."""
    registry, _, out = used
    back_up(registry.url, out)
    registry.add_scan(make_scan("late"))
    before = export(registry)
    new = f"sqlite:///{tmp_path}/new/registry.sqlite3"
    does = {
        "back up": lambda: back_up(registry.url, out, is_forced=True),
        "restore": lambda: restore(registry.url, out, is_forced=True),
        "fill": lambda: restore(new, out),
    }[work]
    child = os.fork()
    if not child:
        setattr(backups, point, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            does()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert check_database(f"sqlite:///{out}").faults == []
    assert export(registry) == before
    assert does().file.exists()
    assert check_database(f"sqlite:///{out}").faults == []
    assert check_database(registry.url).faults == []


def test_a_restore_killed_while_it_writes_is_undone(used, monkeypatch):
    """Its pages are in the log, and not yet in force."""
    registry, _, out = used
    back_up(registry.url, out)
    registry.add_scan(make_scan("late"))
    before = export(registry)
    child = os.fork()
    if not child:
        try:
            source, target = sqlite3.connect(out), sqlite3.connect(registry._database.file)
            source.backup(target, pages=50, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert export(registry) == before
    monkeypatch.setattr(backups, "LOCKED_SECONDS", 0.0)
    with registry._database.write_unlogged(), pytest.raises((DatabaseBusy, DatabaseUnusable), match=r"kept|locked"):
        restore(registry.url, out, is_forced=True)
    assert export(registry) == before


def test_postgres_has_tools_of_its_own(tmp_path):
    """They are named."""
    for does in (back_up, restore):
        with pytest.raises(InvalidRequest, match="pg_dump --format=custom"):
            does("postgresql+psycopg://nobody@localhost/none", tmp_path / "backup")


def test_a_check_finds_what_is_wrong(used, any_registry):
    """On either database, and without changing it; what is not there is not made."""
    registry, file, _ = used
    assert check_database(registry.url).faults == []
    if any_registry.url != "sqlite://":  # of one in memory, another connection would be another database
        report = check_database(any_registry.url)
        assert (report.faults, report.serial) == ([], any_registry.serial())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE slots SET architecture_id = 10000 WHERE id = (SELECT min(id) FROM slots)")
        connection.execute("UPDATE changes SET actor = 'eve'")
    faults = check_database(registry.url).faults
    assert faults[0].startswith("references: row 1 of slots refers to no row of architectures")
    with pytest.raises(DatabaseUnusable, match="it is not there"):
        check_database(f"sqlite:///{file}.none")
    assert not file.with_name(f"{file.name}.none").exists()
