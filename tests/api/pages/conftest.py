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


class Person:
    """Somebody at a browser without JavaScript, with cookies of their own.

    Args:
        app: The service.
        base_url: Its address.
    """

    def __init__(self, app, base_url="http://testserver"):
        self.client = TestClient(app, base_url=base_url, raise_server_exceptions=False, follow_redirects=False)
        self.client.headers["Accept"] = BROWSER
        self.base_url = base_url

    def read(self, path, status=200):
        """Open a page."""
        response = self.client.get(path)
        assert response.status_code == status, response.text
        return Page(response.text)

    def fill(self, page, action, **fields):
        """Return the fields of a form as the page has them, with those given filled in."""
        inside, found = False, {}
        for tag, own in page.elements:
            if tag == "form":
                inside = own.get("action") == action
            elif inside and tag == "input" and "name" in own:
                found[own["name"]] = own.get("value", "")
        assert found, f"no form for {action}"
        return found | fields

    def post(self, path, fields, **headers):
        """Send a form as a browser does."""
        return self.client.post(path, data=fields, headers={"Origin": self.base_url, **headers})

    def send(self, page, action, **fields):
        """Fill in a form and send it."""
        return self.post(action, self.fill(page, action, **fields))

    def sign_in(self, token, after=None):
        """Sign in by the page."""
        path = "/login" if after is None else f"/login?after={after}"
        return self.send(self.read(path), "/login", token=token)


@pytest.fixture
def visit(service):
    """Return somebody at a browser, signed in with the token of a role if one is given."""

    def open_browser(role=None, base_url="http://testserver"):
        person = Person(service.client.app, base_url)
        if role:
            assert person.sign_in(service.tokens[role]).status_code == 303
        return person

    return open_browser
