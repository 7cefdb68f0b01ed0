"""Fixtures of the tests of crawls: a hub, and a registry seeded from PEFT's tables alone."""

import pytest

from loradar.registry import Registry
from loradar.settings import Settings


@pytest.fixture
def own(monkeypatch):
    """An empty registry of the test's own: no catalog is loaded."""
    for name in ("list_catalogs", "list_older"):
        monkeypatch.setattr(f"loradar.registry.catalogs.{name}", list)
    with Registry.open(Settings.from_environment()) as opened:
        yield opened
