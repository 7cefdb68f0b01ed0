"""Settings from the environment."""

from pathlib import Path

from loradar.settings import Settings


def test_everything_has_a_default():
    """The user's data folder, and an SQLite file in it."""
    settings = Settings.from_environment({})
    assert settings.home.is_absolute()
    assert settings.home.name == "loradar"
    assert settings.database_url == f"sqlite:///{settings.home}/registry.sqlite3"


def test_home_and_database_can_be_set():
    """An empty variable counts as unset."""
    settings = Settings.from_environment({"LORADAR_HOME": "~/x", "LORADAR_DATABASE_URL": ""})
    assert settings.home == Path.home() / "x"
    other = Settings.from_environment({"LORADAR_DATABASE_URL": "postgresql+psycopg://db/loradar"})
    assert other.database_url == "postgresql+psycopg://db/loradar"
