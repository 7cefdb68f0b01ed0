"""A service that only reads: of a mirror, and where LORADAR_READ_ONLY is set."""

import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pytest
from records_zoo import make_scan
from seeding import PEFT_ALONE, make_seeded, seeds_of
from shapes import documented
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.routes.operations import Readiness
from loradar.errors import DatabaseUnusable, InvalidRequest, ReadOnly
from loradar.registry import Registry
from loradar.registry.db import readiness
from loradar.settings import READ_ONLY_VARIABLE, Settings
from loradar.snapshots import Signer, write_snapshot

STATEMENT = {"name": "olmo2", "target_modules": ["q_proj"], "rationale": "By the paper."}


@pytest.fixture(scope="module", autouse=True)
def catalogs():
    """Seed from PEFT's tables alone."""
    with seeds_of(PEFT_ALONE):
        yield


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A registry file seeded from them, with tokens of a contributor."""
    path = make_seeded(tmp_path_factory.mktemp("seeded-by-peft") / "registry.sqlite3", PEFT_ALONE)
    with Registry.open(Settings(path.parent, f"sqlite:///{path}")) as registry:
        path.with_name("token").write_text(registry.tokens.create("ada", "admin")[1])
    return path


@pytest.fixture
def reading(seeded_settings):
    """Settings that only read a registry of one's own."""
    return replace(seeded_settings, read_only=True)


@pytest.fixture
def ada(seeded):
    """The headers of somebody who may write."""
    return {"Authorization": f"Bearer {seeded.with_name('token').read_text()}"}


def rejected(answer):
    """Return the message of a rejected write."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only"), answer.text
    return answer.json()["error"]["message"]


def test_a_service_that_only_reads_writes_nothing(reading, ada):
    """Lookups go on, tokens are known, writes are told why; not a byte of the file changes."""
    path = reading.home / "registry.sqlite3"
    before = path.read_bytes()
    with TestClient(create_app(reading)) as client:
        assert client.get("/v1/targets/llama").status_code == 200
        assert client.get("/v1/tokens/me", headers=ada).json()["name"] == "ada"
        for _ in range(2):
            assert READ_ONLY_VARIABLE in rejected(client.post("/v1/submissions", json=STATEMENT, headers=ada))
        assert READ_ONLY_VARIABLE in rejected(
            client.post("/v1/tokens", json={"name": "eve", "role": "admin"}, headers=ada)
        )
        ready = documented(Readiness, client.get("/readyz").json())
        assert (ready.status, ready.mode, ready.checks) == (
            "ready",
            "read-only",
            f"waiting: {READ_ONLY_VARIABLE} is set",
        )
    assert path.read_bytes() == before


@pytest.mark.first_use
def test_a_mirror_says_that_it_is_one(tmp_path, seeded, ada):
    """And until when; its writes are those of its source."""
    source = Settings(tmp_path / "source", f"sqlite:///{tmp_path}/source.sqlite3")
    shutil.copy(seeded, tmp_path / "source.sqlite3")
    signer = Signer.of(source)
    with Registry.open(source) as registry, registry.snapshot() as lines:
        info = write_snapshot(tmp_path / "snapshot", lines, signer)
    mirror = Settings(tmp_path / "mirror", f"sqlite:///{tmp_path}/mirror.sqlite3")
    with Registry.open(mirror, is_seeded=False) as registry:
        registry.mirror.load(tmp_path / "snapshot", signer.key)
    with TestClient(create_app(mirror)) as client:
        ready = documented(Readiness, client.get("/readyz").json())
        assert (ready.mode, ready.expires, ready.serial) == ("mirror", info.expires, info.serial)
        assert client.get("/v1/targets/llama").status_code == 200
        assert client.post("/v1/submissions", json=STATEMENT, headers=ada).status_code == 401  # tokens are not copied
        assert client.get("/v1/snapshot").status_code == 200
        text = client.get("/metrics").text
        (line,) = re.findall(r"^loradar_mirror_expires_timestamp_seconds (\S+)$", text, re.MULTILINE)
        assert float(line) == pytest.approx(datetime.fromisoformat(info.expires).timestamp(), abs=1)


def test_a_disk_that_cannot_be_written_will_do_for_reading(reading, monkeypatch):
    """It is why one would only read."""
    monkeypatch.setattr(readiness.os, "access", lambda *_: False)
    with TestClient(create_app(reading)) as client:
        assert client.get("/readyz").status_code == 200
    with TestClient(create_app(replace(reading, read_only=False)), raise_server_exceptions=False) as client:
        assert client.get("/readyz").status_code == 503


def test_what_would_have_to_be_written_first_is_rejected(reading):
    """A schema of an older version; an older seed is read as it is, as is the packaged registry where there is none."""
    path = reading.home / "registry.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM seeds")
    with Registry.open(reading) as registry:
        assert registry.lookup("llama").name == "llama"
        with pytest.raises(ReadOnly, match=READ_ONLY_VARIABLE):
            registry.add_scan(make_scan())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(DatabaseUnusable, match=f"an older version of loradar.*without {READ_ONLY_VARIABLE}"):
        Registry.open(reading)
    nothing = replace(reading, database_url=f"sqlite:///{reading.home}/none.sqlite3")
    with pytest.raises(DatabaseUnusable, match="not there any more"):
        Registry.open(nothing)
    assert not (reading.home / "none.sqlite3").exists()


def test_a_server_that_takes_no_writes_is_ready_for_reading_alone(postgres_url, tmp_path):
    """A standby of PostgreSQL, or one whose database was switched to reading."""
    settings = Settings(tmp_path, postgres_url)
    with Registry.open(settings) as registry, registry._database.engine.begin() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with Registry.open(replace(settings, read_only=True)) as registry:
        assert registry.check_readiness().mode == "read-only"
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert client.get("/v1/targets/llama").status_code == 200
        assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("", False), (" 1 ", True)])
def test_the_setting_is_1_or_0(monkeypatch, text, value):
    """Anything else is said."""
    monkeypatch.setenv(READ_ONLY_VARIABLE, text)
    assert Settings.from_environment().read_only is value
    monkeypatch.setenv(READ_ONLY_VARIABLE, "perhaps")
    with pytest.raises(InvalidRequest, match=f"{READ_ONLY_VARIABLE} 'perhaps'"):
        Settings.from_environment()
