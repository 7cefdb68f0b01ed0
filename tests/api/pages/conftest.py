"""A browser without JavaScript: what it sends, and what it reads of a page."""

from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from loradar.api import create_app

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


class Page(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.html, self.elements, self.text = html, [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        """Keep a text."""
        self.text += data

    def all(self, tag, **attributes):
        """Return the attributes of the elements with this name and these attributes."""
        return [own for name, own in self.elements if name == tag and attributes.items() <= own.items()]


@pytest.fixture
def client(read_settings):
    """A program's client of a service with a seeded registry."""
    with TestClient(create_app(read_settings), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture
def read(client):
    """Read a page as a browser does."""

    def read_page(path, status=200):
        response = client.get(path, headers={"Accept": BROWSER})
        assert response.status_code == status, response.text
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        return Page(response.text)

    return read_page
