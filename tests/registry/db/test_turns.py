"""Writers take turns, wait for no more than their time, and a query ends at its limit."""

import fcntl
import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager

import pytest
from patience import patience, wait_until
from sqlalchemy import text

from loradar.errors import DatabaseBusy
from loradar.registry.db.database import Database
from loradar.registry.db.time_limits import TimeLimits
from loradar.registry.db.turns import Turns

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def file(tmp_path):
    """An SQLite file with a table."""
    path = tmp_path / "some.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (name TEXT)")
    return path


@contextmanager
def opened(file, **limits):
    """Open the file with limits."""
    database = Database(f"sqlite:///{file}", TimeLimits(**limits))
    try:
        yield database
    finally:
        database.close()


@contextmanager
def held(file):
    """Hold the file's lock as another program does."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        other.rollback()


def test_first_come_is_first_served(tmp_path):
    """However many wait, and though each could begin."""
    turns, served, threads = Turns(tmp_path), [], []

    def write(number):
        with turns.turn(patience()):
            served.append(number)

    with turns.turn(0):
        for number in range(20):
            threads.append(threading.Thread(target=write, args=(number,)))
            threads[-1].start()
            wait_until(lambda number=number: len(turns._waiting) == number + 1, "a writer in the queue")
    for thread in threads:
        thread.join(patience())
    assert served == [*range(20)]


def test_a_turn_that_does_not_come_is_given_up(tmp_path):
    """Those behind it are served."""
    turns = Turns(tmp_path)
    with turns.turn(0) as first:
        with turns.turn(0.01) as second:
            assert (first, second) == (True, False)
        assert not turns._waiting
    with turns.turn(0) as third:
        assert third


def test_of_processes_one_waits_for_the_database(tmp_path):
    """The next one waits for it, not beside it; and goes on at its time, whoever keeps the place."""
    turns, arrived = Turns(tmp_path), threading.Event()

    def wait():
        with turns.first_in_line(time.monotonic() + patience()):
            arrived.set()

    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with turns.first_in_line(time.monotonic() + 0.01):
        pass
    thread = threading.Thread(target=wait)
    thread.start()
    assert not arrived.wait(0.1)
    os.close(other)
    thread.join(patience())
    assert arrived.is_set()


def test_a_writer_waits_no_longer_than_its_time(file):
    """Reads go on meanwhile; the lock free again, it writes."""
    with opened(file, busy=0.05) as database:
        with held(file):
            kept = r"have kept the registry's database for 0\.05 s"
            with pytest.raises(DatabaseBusy, match=kept) as caught, database.write_unlogged():
                pytest.fail("it wrote")
            assert caught.value.details["retry_after"] >= 1
            with database.read() as connection:
                assert connection.execute(text("SELECT count(*) FROM things")).scalar_one() == 0
        with database.write_unlogged() as connection:
            connection.execute(text("INSERT INTO things VALUES ('a')"))


def test_a_writer_begins_when_the_lock_is_free(file):
    """It was there before, and waits for the other program."""
    with opened(file, busy=patience()) as database:

        def write():
            with database.write_unlogged() as connection:
                connection.execute(text("INSERT INTO things VALUES ('a')"))

        thread = threading.Thread(target=write)
        with held(file) as other:
            thread.start()
            wait_until(lambda: database._turns._is_taken, "the writer's turn")
            other.execute("INSERT INTO things VALUES ('b')")
            other.commit()
        thread.join(patience())
        with database.read() as connection:
            names = connection.execute(text("SELECT name FROM things ORDER BY rowid")).scalars().all()
        assert names == ["b", "a"]


def test_a_query_ends_at_its_limit(file):
    """Not the next one of that connection."""
    with opened(file, query=0.05) as database, database.read() as connection:
        with pytest.raises(DatabaseBusy, match=r"took more than 0\.05 s, and was ended"), database.read() as other:
            other.execute(text(ENDLESS)).scalar_one()
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    with opened(file, query=patience()) as database, database.read() as connection:
        assert connection.execute(text(f"{ENDLESS.replace('FROM n)', 'FROM n WHERE i < 1000000)')}")).scalar_one()


def test_a_server_has_the_same_limits(postgres_server):
    """For queries, and for the locks of others."""
    with postgres_server.database() as uri:
        url = uri.replace("postgresql://", "postgresql+psycopg://", 1)
        database, short = Database(url), Database(url, TimeLimits(busy=0.05, query=0.3))
        with database.write_unlogged() as connection:
            connection.execute(text("CREATE TABLE things (name TEXT)"))
        with pytest.raises(DatabaseBusy, match=r"took more than 0\.3 s"), short.read() as connection:
            connection.execute(text("SELECT pg_sleep(300)"))
        with database.write_unlogged() as connection:
            connection.execute(text("LOCK TABLE things"))
            with pytest.raises(DatabaseBusy, match=r"have kept .* for 0\.05 s"), short.write_unlogged() as other:
                other.execute(text("LOCK TABLE things"))
        database.close()
        short.close()
