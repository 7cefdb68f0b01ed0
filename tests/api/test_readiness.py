"""``/readyz``: the states in which a registry cannot serve, and the way back; lookups while a database is frozen."""

import os
import sqlite3
from contextlib import closing, suppress
from types import SimpleNamespace

import psutil
import pytest
from patience import wait_until
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.registry.db import readiness
from loradar.settings import Settings

URL = "/v1/targets/llama"


def reason_of(answer, caplog):
    """Return why a service is not ready, from its log: the answer keeps the place of the database to itself."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unusable"), answer.text
    return caplog.text


def test_a_damaged_page_is_not_ready(client, seeded_settings, caplog):
    """Though the pages that a probe would read are sound."""
    assert client.get("/readyz").status_code == 200
    path = seeded_settings.home / "registry.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'slots'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        sound = file.read(size)
        file.seek((root - 1) * size)
        file.write(os.urandom(size))
    assert "damaged" in reason_of(client.get("/readyz"), caplog) or "malformed" in caplog.text
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(sound)
    assert client.get("/readyz").status_code == 200


def test_a_schema_of_another_version_is_not_ready(client, seeded_settings, caplog):
    """A newer loradar has upgraded the file while this one serves it."""
    with closing(sqlite3.connect(seeded_settings.home / "registry.sqlite3")) as connection:
        assert client.get("/readyz").status_code == 200
        (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        for number, status in (("9999", 503), (version, 200)):
            connection.execute("UPDATE alembic_version SET version_num = ?", (number,))
            connection.commit()
            assert client.get("/readyz").status_code == status
    assert "its schema is at revision 9999" in caplog.text


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ({"f_bavail": 1000, "f_frsize": 1, "f_flag": 0}, "its disk is full"),
        ({"f_bavail": 10**9, "f_frsize": 1, "f_flag": os.ST_RDONLY}, "can be read and not be written"),
    ],
)
def test_a_disk_that_cannot_be_written_is_not_ready(client, monkeypatch, caplog, disk, words):
    """Lookups go on."""
    disk = SimpleNamespace(**disk)
    monkeypatch.setattr(readiness, "os", SimpleNamespace(**{**vars(os), "statvfs": lambda _: disk}))
    assert words in reason_of(client.get("/readyz"), caplog)
    assert client.get(URL).status_code == 200
    monkeypatch.undo()


def test_a_frozen_database_is_not_ready_and_lookups_come_from_memory(postgres_server, monkeypatch, tmp_path):
    """Its processes are stopped and go on: what was looked up before is sent, marked as stale, until they do."""
    monkeypatch.setattr("loradar.registry.catalogs.list_catalogs", list)
    monkeypatch.setattr("loradar.registry.catalogs.list_older", list)
    with postgres_server.database() as uri:
        url = uri.replace("postgresql://", "postgresql+psycopg://", 1)
        with TestClient(create_app(Settings(tmp_path, url))) as client:
            fresh = [client.get(URL) for _ in range(3)][-1]
            assert client.get("/readyz").status_code == 200
            postmaster = postgres_server.server.get_postmaster_info().process
            processes = [postmaster, *postmaster.children(recursive=True)]
            for process in processes:
                process.suspend()
            try:
                assert client.get("/readyz").status_code == 503
                stale = client.get(URL)
                assert (stale.status_code, stale.content) == (200, fresh.content)
                assert stale.headers["Cache-Status"] == "loradar; hit; ttl=-1"
                assert stale.headers["Cache-Control"] == "no-store"
                tag = {"If-None-Match": fresh.headers["ETag"]}
                assert client.get(URL, headers=tag).headers["Cache-Status"] == "loradar; hit; ttl=-1"
            finally:
                for process in processes:
                    with suppress(psutil.Error):
                        process.resume()
            wait_until(lambda: client.get("/readyz").status_code == 200, "the database that goes on")
            wait_until(lambda: "Cache-Status" not in client.get(URL).headers, "a fresh response")
