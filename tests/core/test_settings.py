"""Settings from the environment."""

from pathlib import Path

import pytest

from loradar.errors import InvalidRequest
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


def test_the_log_and_the_prefix_can_be_set():
    """In any case of letters; a slash at the end of the prefix does not matter."""
    environment = {"LORADAR_LOG_FORMAT": "JSON", "LORADAR_LOG_LEVEL": "info", "LORADAR_ROOT_PATH": "/a/b/"}
    found = Settings.from_environment(environment)
    assert (found.log_format, found.log_level, found.root_path) == ("json", "info", "/a/b")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LORADAR_LOG_FORMAT", "xml"),
        ("LORADAR_LOG_LEVEL", "loud"),
        ("LORADAR_ROOT_PATH", "loradar"),
        ("LORADAR_ROOT_PATH", "/a b"),
        ("LORADAR_ROOT_PATH", "/v1"),
        ("LORADAR_ROOT_PATH", "//evil"),
    ],
)
def test_an_invalid_setting_is_rejected(variable, value):
    """With the variable, the value and a valid one."""
    with pytest.raises(InvalidRequest, match="give ") as caught:
        Settings.from_environment({variable: value})
    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)
