"""The tests' own PostgreSQL: one that dies costs the test that used it, and no other."""

import os
import signal

import psycopg
import pytest
from patience import wait_until
from postgres_server import PostgresServer, PostgresUnavailable


@pytest.fixture
def own(postgres_server):
    """A server to be killed, not the session's."""
    server = PostgresServer(postgres_server.folder / "own")
    server.folder.mkdir(exist_ok=True)
    yield server
    server.stop()


def kill(server):
    """Kill the server's first process, and wait until nothing answers."""
    os.kill(server.server.get_pid(), signal.SIGKILL)
    wait_until(lambda: not answers(server.server.get_uri()), "the end of the server")


def answers(uri):
    """Return whether a server takes connections."""
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_dead_server_is_replaced_and_its_log_shown(own):
    """The test that used it fails with the reason; the next one has a database."""
    with pytest.raises(PostgresUnavailable, match=r"(?s)died during this test.*ready to accept"), own.database():
        kill(own)
    with pytest.warns(UserWarning, match=r"(?s)died and is replaced.*ready to accept"), own.database() as uri:
        assert answers(uri)


def test_without_a_server_the_reason_is_given_each_time(own, monkeypatch):
    """One failed start is not repeated for every test."""
    starts = []

    def fail():
        starts.append(1)
        raise OSError("no space left")

    monkeypatch.setattr(own, "_start", fail)
    for _ in range(2):
        with pytest.raises(PostgresUnavailable, match="No PostgreSQL can be started: no space left"), own.database():
            pytest.fail("there is no database")
    assert len(starts) == 1
