"""The caches that are filled before the first page."""

import pytest

from loradar.api import create_app
from loradar.api.pages import rendering
from loradar.api.pages.warming import warm_up
from loradar.errors import DatabaseUnusable
from loradar.registry import Registry
from loradar.registry.mappings import similar


def test_the_first_page_finds_its_caches_filled(read_settings, monkeypatch):
    """Templates are compiled, and the profiles of architectures are read; a second time nothing is read."""
    app = create_app(read_settings)
    warm_up(app)
    compiled = rendering.environment().cache
    assert len(compiled) >= len(rendering.environment().list_templates())
    monkeypatch.setattr(similar, "_read_groups", lambda _: pytest.fail("read again"))
    assert app.openapi_schema is None, "12 MB that lookups and pages do without"
    assert app.state.registry.get().list_similar("transformers", "llama", 1)
    app.state.registry.close()


def test_a_database_that_is_away_stops_nothing(read_settings, monkeypatch):
    """Who requests a page is told of it."""

    def fail(*_):
        raise DatabaseUnusable("away")

    monkeypatch.setattr(Registry, "open", fail)
    warm_up(create_app(read_settings))
