"""What may befall a database under an open registry: nothing is lost or written twice, and it goes on by itself."""

import os
import random
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from records_zoo import make_scan
from sqlalchemy import event, text

from loradar.errors import DatabaseUnusable
from loradar.registry import Registry, back_up, check_database, restore
from loradar.registry.db import HEAD
from loradar.registry.db.database import connect_to, transaction
from loradar.settings import Settings

KILLS = 4


def export(registry):
    """Return the canonical export of a registry."""
    with registry.snapshot() as lines:
        return [*lines]


def assert_goes_on(registry, name="after"):
    """Write, look up, and verify that the log is whole."""
    serial = registry.serial()
    assert registry.add_scan(make_scan(name)).serial == serial + 1
    assert registry.lookup(name).name == name
    assert registry.verify_log().faults == ()
    assert registry.check_readiness().serial == serial + 1


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request, tmp_path):
    """An open registry with a change of its own, on either database."""
    url = f"sqlite:///{tmp_path}/registry.sqlite3"
    url = url if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Registry.open(Settings(tmp_path, url)) as opened:
        opened.add_scan(make_scan("early"))
        yield opened


def test_a_file_that_is_away_for_a_while(registry):
    """No empty one is made in its place; back again, with its log, it is used on."""
    registry.add_scan(make_scan("early"))
    before, file = export(registry), registry._database.file
    moved = [path for path in file.parent.iterdir() if path.name.startswith(file.name)]
    away = file.parent / "away"
    away.mkdir()
    for path in moved:
        path.rename(away / path.name)
    for does in (registry.check_readiness, registry.serial, lambda: registry.add_scan(make_scan("late"))):
        with pytest.raises(DatabaseUnusable, match="not there any more"):
            does()
    assert not file.exists()
    for path in moved:
        (away / path.name).rename(path)
    assert export(registry) == before
    assert_goes_on(registry)


def test_a_file_that_another_one_replaced(registry, tmp_path):
    """It is the registry from then on, whether it was moved there or restored."""
    file, other = registry._database.file, tmp_path / "other.sqlite3"
    back_up(registry.url, other)
    registry.add_scan(make_scan("early"))
    assert registry.find("early")
    other.replace(file)
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    assert registry.find("early") is None
    assert_goes_on(registry)


@pytest.mark.parametrize("content", [b"", b"spoiled" * 1000, bytes(5000)])
def test_a_file_that_was_written_over(registry, tmp_path, content):
    """It is no registry, and is never made one; a backup is put in its place while services wait for it."""
    registry.add_scan(make_scan("early"))
    before, backup = export(registry), tmp_path / "backup.sqlite3"
    back_up(registry.url, backup)
    with closing(sqlite3.connect(registry._database.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else all of it may still be in the log
    registry._database.file.write_bytes(content)
    for does in (registry.check_readiness, registry.serial, lambda: registry.add_scan(make_scan("late"))):
        with pytest.raises(DatabaseUnusable):
            does()
    assert registry._database.file.read_bytes() == content
    kept = restore(registry.url, backup, is_forced=True).kept
    assert kept.read_bytes() == content
    assert export(registry) == before
    assert_goes_on(registry)


def fill(registry):
    """Write without end."""
    for number in range(1000):
        registry.add_scan(make_scan(f"large{number}" + "x" * 200))


def test_a_full_disk(registry):
    """The write that does not fit is undone as a whole; with room again, the next one is stored."""
    registry.add_scan(make_scan("early"))
    engine = registry._database.engine
    limited = True

    @event.listens_for(engine, "checkout")
    def limit(connection, *_):
        """Let the file grow no further."""
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages if limited else 2**30}")

    serial = registry.serial()
    with pytest.raises(DatabaseUnusable, match="full"):
        fill(registry)
    assert registry.serial() >= serial
    assert registry.verify_log().faults == ()
    limited = False
    assert_goes_on(registry)


def test_a_schema_of_another_version(stored):
    """Another version has upgraded the database under a process: it writes nothing until it is started anew."""
    before = export(stored)
    for revision in ("9999", "0001"):
        with stored._database.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
        for does in (stored.check_readiness, lambda: stored.add_scan(make_scan("late"))):
            with pytest.raises(
                DatabaseUnusable, match=f"revision {revision}, and this process of loradar knows {HEAD}"
            ):
                does()
        assert stored.lookup("early").name == "early"
    with stored._database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": HEAD})
    assert export(stored) == before
    assert_goes_on(stored)


def test_an_upgrade_that_is_killed(stored):
    """Before any statement: it is undone, and the next process does it; nothing is lost."""
    before, url = export(stored), stored.url
    stored.close()
    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    engine = connect_to(url)
    with transaction(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0011")
    engine.dispose()
    killed = 0
    for place in random.sample(range(4, 14), KILLS):
        child = os.fork()
        if not child:
            _open_in_child(url, place)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert killed
    with Registry.open(Settings(Path(), url)) as opened:
        assert export(opened) == before
        assert_goes_on(opened)
    assert check_database(url).faults == []


def _open_in_child(url, place):
    """Open a registry in a forked process that kills itself before a statement."""
    executed = 0

    def count(*_):
        nonlocal executed
        executed += 1
        if executed == place:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        from sqlalchemy.engine import Engine  # noqa: PLC0415 - for this process alone

        event.listen(Engine, "before_cursor_execute", count)
        Registry.open(Settings(Path(), url)).close()
    finally:
        os._exit(0)


def test_writers_that_are_killed(stored):
    """Each write is there whole, or not at all; the serials have no gap, and nothing is twice."""
    before = stored.serial()
    places = random.sample(range(2, 25), KILLS)
    for number, place in enumerate(places):
        child = os.fork()
        if not child:
            _write_in_child(stored.url, f"killed{number}", place)
        os.waitpid(child, 0)
    whole = [n for n in range(KILLS) if stored.find(f"killed{n}")]
    assert stored.serial() == before + len(whole)
    for number in range(KILLS):  # whoever got no answer tries again
        stored.add_scan(make_scan(f"killed{number}"))
    assert stored.serial() == before + KILLS
    assert stored.verify_log().faults == ()
    assert_goes_on(stored)


def _write_in_child(url, name, place):
    try:
        registry, executed = Registry.open(Settings(Path(), url)), 0

        @event.listens_for(registry._database.engine, "before_cursor_execute")
        def count(*_):
            nonlocal executed
            executed += 1
            if executed == place:
                os.kill(os.getpid(), signal.SIGKILL)

        registry.add_scan(make_scan(name))
    finally:
        os._exit(0)


def test_a_copy_of_the_file_alone(registry, tmp_path):
    """Taken without its log, as by a careless backup, it is an earlier state and still whole."""
    registry.add_scan(make_scan("early"))
    copy = tmp_path / "copy.sqlite3"
    shutil.copy(registry._database.file, copy)
    with Registry.open(Settings(tmp_path, f"sqlite:///{copy}")) as opened:
        assert opened.verify_log().faults == ()
        assert_goes_on(opened)
