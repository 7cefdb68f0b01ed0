"""Fixtures for every test: nothing reads or writes the user's own registry."""

import shutil
from pathlib import Path

import pytest

from loradar.registry import Registry
from loradar.settings import DATABASE_URL_VARIABLE, HOME_VARIABLE, Settings


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
    """The settings of an environment whose registry is seeded."""
    home.mkdir()
    shutil.copy(seeded, home / "registry.sqlite3")
    return settings


@pytest.fixture
def registry(seeded_settings):
    """An open, seeded registry."""
    with Registry.open(seeded_settings) as opened:
        yield opened
