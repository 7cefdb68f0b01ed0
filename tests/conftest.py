"""Fixtures for every test: nothing reads or writes the user's own registry."""

import gc
import os
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
from filelock import FileLock
from patience import patience
from postgres_server import PostgresServer
from scan_cache import share_scans, shared_folder
from seeding import copy_seeded, make_seeded
from tenacity import wait_none

from loradar.client import transport
from loradar.client.connection import Connection
from loradar.registry import Registry
from loradar.registry.db import prepare, shipped
from loradar.sandbox import pool as sandbox
from loradar.sandbox.pool import Bounds
from loradar.settings import DATABASE_URL_VARIABLE, HOME_VARIABLE, URL_VARIABLE, Settings

# How long a draw takes says more of the machine than of the test. In CI a failure must come back.
hypothesis.settings.register_profile(
    "unhurried",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("unhurried")


NO_SCANS = {"registry", "migrations"}
"""Folders whose tests never scan: alone, they need not wait for torch."""


def pytest_collection_finish():
    """Leave what the tests' modules imported out of garbage collection: it took a seventh of their processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def unhurried(request):
    """Give scans, workers and clients as much time as a busy machine takes; a test of a limit sets its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "START_SECONDS", patience())
        patch.setitem(sandbox.Sandbox.__init__.__kwdefaults__, "preload", (*sandbox.PRELOAD, "unhurried"))
        patch.setattr(Bounds.__init__, "__defaults__", (Bounds.__init__.__defaults__[0], patience(), 8.0))
        patch.setitem(Connection.__init__.__kwdefaults__, "timeout", patience())
        patch.setattr(transport, "PAUSE", wait_none())
        patch.setattr(prepare, "QUIET_SECONDS", patience())  # a copy of the seeded file can take longer than one second
        folders = {item.path.relative_to(Path(__file__).parent).parts[0] for item in request.session.items}
        if not folders <= NO_SCANS:
            import_module("unhurried")
            patch.setattr("loradar.api.workers.SECONDS", patience())
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_scans(tmp_path_factory):
    """Let tests share the scans of architectures."""
    share_scans(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, request):
    """Keep each test's files in a folder of its own.

    Seeding takes four seconds: one worker of a run does it once. A test of it is marked ``first_use``, and seeds. The
    packaged registry, which a source tree may have or not, is left aside.
    """
    monkeypatch.setattr(shipped, "find_shipped", lambda _digest: None)
    folder = tmp_path / "home"
    monkeypatch.setenv(HOME_VARIABLE, str(folder))
    for name in (DATABASE_URL_VARIABLE, URL_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    if not request.node.get_closest_marker("first_use"):
        monkeypatch.setattr(prepare, "_prepare", partial(copy_seeded, request))
    return folder


@pytest.fixture(scope="session")
def seeded(tmp_path_factory) -> Path:
    """A seeded registry file, made once in a run and copied by whoever needs one."""
    shared = shared_folder(tmp_path_factory.getbasetemp()) / "seeded"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        if not (shared / "done").exists():
            make_seeded(shared / "registry.sqlite3")
            (shared / "done").touch()
    # Each worker reads its own, so that a test that writes into what it should only read is found in its worker.
    return Path(shutil.copy(shared / "registry.sqlite3", tmp_path_factory.mktemp("seeded")))


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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback with nothing in it, and an empty cache."""
    with import_module("hub_server").asked(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server():
    """A real PostgreSQL server of the session's own, started with the first database."""
    # Not in pytest's folder: each run of pytest by root closes that of all runs to the user the server runs as.
    folder = TemporaryDirectory(prefix="loradar-", ignore_cleanup_errors=True)
    with folder as name, pytest.MonkeyPatch.context() as patch:
        # The package asks for the runtime folder when it is imported, and warns where no desktop has set one.
        patch.setenv("XDG_RUNTIME_DIR", name)
        server = PostgresServer(Path(name))
        yield server
        server.stop()


@pytest.fixture
def postgres_url(postgres_server):
    """The SQLAlchemy URL of an empty PostgreSQL database."""
    with postgres_server.database() as uri:
        yield uri.replace("postgresql://", "postgresql+psycopg://", 1)
