"""What all pages share: who gets one, its headers, its links, and the pages of errors."""

import re
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.negotiation import prefers_html
from loradar.api.pages import home, rendering
from loradar.registry import Registry
from loradar.settings import RequestLimits

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER["Accept"], True),
        ("text/html", True),
        ("TEXT/HTML;q=0.5, application/json;q=0.4", True),
        ("text/*;q=0.3", True),
        ("text/html;level=1;q=0.7, */*;q=0.1", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/html;q=0.2, application/json;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=0, */*", False),
        ("image/png", False),
        ("text/html;q=nonsense;;,,, */*;q=1", False),
    ],
)
def test_a_page_goes_to_whoever_prefers_one(accept, expected):
    """By the weight of each type, the most specific range first; programs that take anything get JSON."""
    assert prefers_html(accept) is expected


def test_one_path_serves_both(client):
    """Each response says that it depends on Accept, also after it was stored."""
    for _ in range(2):
        page, program = client.get("/", headers=BROWSER), client.get("/")
        assert page.headers["Content-Type"].startswith("text/html")
        assert program.json()["name"] == "loradar"
        assert page.headers["Vary"] == "Accept-Encoding, Accept"
        assert program.headers["Vary"] in ("Accept", "Accept-Encoding, Accept")
        tagged = client.get("/", headers={**BROWSER, "If-None-Match": page.headers["ETag"]})
        assert (tagged.status_code, tagged.headers["Vary"]) == (304, "Accept-Encoding, Accept")


def test_the_responses_of_the_api_are_the_same_for_a_browser(client):
    """Errors too; they depend on nothing that they do not state."""
    for path in ("/v1/architectures/transformers/lama", "/v1/architectures", "/healthz", "/openapi.json"):
        response = client.get(path, headers=BROWSER)
        assert response.headers["Content-Type"] == "application/json"
        assert "Accept" not in response.headers.get("Vary", "").split(", ")


def test_a_page_is_rendered_once_per_serial(client, monkeypatch):
    """A second reader gets the stored bytes; another query is another page."""
    client.get("/v1/targets/llama")  # the first request of all is not stored
    rendered = []
    monkeypatch.setattr(home, "page", lambda *a, **k: rendered.append(a) or rendering.page(*a, **k))
    assert len({client.get("/", headers=BROWSER).text for _ in range(3)}) == 1
    assert len(rendered) == 1
    client.get("/?a=1", headers=BROWSER)
    assert len(rendered) == 2


def test_a_page_runs_and_loads_nothing_but_its_own(client, read):
    """No inline script or style, nothing from elsewhere; the policy says the same to the browser."""
    policy = client.get("/", headers=BROWSER).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = read("/")
    assert not [
        tag for tag, own in page.elements if tag == "style" or "style" in own or any(k[:2] == "on" for k in own)
    ]
    assert all(own.get("src") for own in page.all("script"))
    loaded = [own.get("src") or own.get("href") for tag, own in page.elements if tag in ("script", "link", "img")]
    assert loaded
    assert all(re.match("/(?!/)|#", link) for link in loaded)


def test_static_files_are_kept_for_a_year_under_the_digest_of_their_content(client, read):
    """A page names them; one with another digest is not there."""
    page = read("/")
    files = [own["href"] for own in page.all("link", rel="stylesheet")] + [own["src"] for own in page.all("script")]
    assert len(files) >= 2
    for path in files:
        response = client.get(path)
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Accept" not in response.headers.get("Vary", "").split(", ")
        assert client.get(re.sub("static/.", "static/_", path)).status_code == 404
    assert client.get("/static/..%2Frendering.py").status_code == 404


def test_pages_work_under_a_root_path(read_settings):
    """Every link begins with it."""
    with TestClient(create_app(read_settings), root_path="/lora") as client:
        page = client.get("/lora/", headers=BROWSER).text
    links = re.findall(r'(?:href|src|action|data-suggest)="([^"]*)"', page)
    assert "/lora/architectures" in links
    assert [link for link in links if not link.startswith(("/lora/", "#"))] == []


def test_what_is_not_there_is_a_page(read):
    """A browser reads the error as a page, with the status of the error and a way on."""
    page = read("/nowhere/<script>alert(1)</script>", status=404)
    assert "There is no page at /nowhere/<script>alert(1)</script>." in page.text
    assert "<script>alert" not in page.html
    assert page.all("a", href="/architectures")


def test_too_many_requests_and_no_database_are_pages(read_settings, tmp_path):
    """With their headers."""
    limited = replace(read_settings, limits=RequestLimits(1, 1, 1, 1))
    with TestClient(create_app(limited)) as client:
        client.get("/", headers=BROWSER)
        response = client.get("/", headers=BROWSER)
        assert (response.status_code, response.headers["Content-Type"]) == (429, "text/html; charset=utf-8")
        assert f"Try again in {response.headers['Retry-After']} seconds" in response.text
        assert client.get("/").json()["error"]["code"] == "too_many_requests"
    away = replace(read_settings, database_url=f"sqlite:///{tmp_path}/no/such/folder.sqlite3")
    (tmp_path / "no").write_text("a file")
    with TestClient(create_app(away)) as client:
        response = client.get("/", headers=BROWSER)
        assert (response.status_code, response.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert str(tmp_path) not in response.text


def test_a_failure_shows_nothing_of_its_cause(client, monkeypatch):
    """500 as a page."""

    def fail(_):
        message = "secret cause"
        raise RuntimeError(message)

    monkeypatch.setattr(Registry, "info", fail)
    response = client.get("/", headers=BROWSER)
    assert response.status_code == 500
    assert "Something failed here" in response.text
    assert "secret" not in response.text
