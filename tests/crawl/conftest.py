"""Fixtures of the tests of crawls: a hub, and a registry seeded from PEFT's tables alone."""

import hub_server
import huggingface_hub
import pytest
from huggingface_hub import constants

from loradar.registry import Registry
from loradar.settings import Settings


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback with nothing in it, also for processes started from here."""
    (tmp_path / "hub").mkdir()
    with hub_server.running(tmp_path / "hub") as running:
        settings = {
            "ENDPOINT": running.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": running.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_OFFLINE": False,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        environment = {"HF_ENDPOINT": running.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN_PATH": settings["HF_TOKEN_PATH"]}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running
    huggingface_hub.close_session()


@pytest.fixture
def own(monkeypatch):
    """An empty registry of the test's own: no catalog is loaded."""
    for name in ("list_catalogs", "list_older"):
        monkeypatch.setattr(f"loradar.registry.catalogs.{name}", list)
    with Registry.open(Settings.from_environment()) as opened:
        yield opened
