"""A client of the application, without a server."""

import pytest
from starlette.testclient import TestClient

from loradar.api import create_app


@pytest.fixture
def client(seeded_settings):
    """A client of a service with a seeded registry; failures are answered as a real server would."""
    with TestClient(create_app(seeded_settings), raise_server_exceptions=False) as opened:
        yield opened
