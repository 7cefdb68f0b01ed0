"""Every page, in light and dark: accessible by axe-core, small, still, and from this service alone."""

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import browsing
import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from patience import patience
from starlette.routing import compile_path

from loradar.api import create_app

FIGURES = Path(__file__).parents[2] / ".cache/browser"
"""Folder with the first contentful paint (ms), the layout shift and the bytes of each page, for people to read."""

MOST_BYTES = 60_000
"""Bytes of a page with its styles and scripts, as they are sent: most of them compressed."""

COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
"""Options of axe-core: the rules whose outcome another colour scheme can change; all others take most of the time."""

OBSERVE = """() => {
  window.seen = {shift: 0, paint: null};
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.seen.shift += entry.value;
  }).observe({type: "layout-shift", buffered: true});
  new PerformanceObserver((list) => {
    for (const entry of list.getEntriesByName("first-contentful-paint")) window.seen.paint = entry.startTime;
  }).observe({type: "paint", buffered: true});
}"""

MEASURE = """() => {
  const parts = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return {...window.seen, bytes: parts.reduce((sum, each) => sum + each.transferSize, 0)};
}"""


WIDER = """(width) => document.documentElement.scrollWidth <= width ? [] :
  [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > width)
    .map((each) => each.outerHTML.slice(0, 80)).slice(0, 9)"""
"""The elements that make a page wider than the screen, and so scroll sideways as a whole."""


@pytest.fixture(scope="module")
def pages(service):
    """The path of every page by name, with the person who sees it."""
    return browsing.list_pages(service)


@pytest.mark.parametrize("name", browsing.PAGES)
def test_a_page_is_for_everybody(browser, service, pages, name):
    """No violation of axe-core's rules, in either colour scheme and on a phone; no shift; no error; no other host."""
    path, person = pages[name]
    with browsing.visiting(browser, service, person, reduced_motion="reduce") as (page, seen):
        page.add_init_script(f"({OBSERVE})()")
        response = page.goto(path)
        page.wait_for_load_state("networkidle")
        measured = page.evaluate(MEASURE)
        axe = Axe()
        for scheme, options in (("light", None), ("dark", COLOURS)):
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page, options=options)
            assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == [], scheme
        page.set_viewport_size(browsing.PHONE)
        page.wait_for_function(f"innerWidth === {browsing.PHONE['width']}")
        assert page.evaluate(WIDER, browsing.PHONE["width"]) == []
        FIGURES.mkdir(parents=True, exist_ok=True)
        (FIGURES / f"{name}.json").write_text(json.dumps(measured), "utf-8")
        assert measured["shift"] == 0
        assert measured["bytes"] <= MOST_BYTES
        expected = [] if response.ok else [f"the server responded with a status of {response.status}"]
        assert [problem for problem in seen.problems if not any(text in problem for text in expected)] == []
        assert all(url.startswith(service.url) for url in seen.requests)


@pytest.mark.parametrize("name", ["audit", "browse", "guide", "no-submissions"])
def test_a_page_that_arrives_in_pieces_does_not_move(browser, service, pages, name):
    """Over a slow network a page is not painted before its tables and menus are whole."""
    path, person = pages[name]
    with arriving_in_pieces(service.url) as url, browsing.visiting(browser, service, person, base_url=url) as (page, _):
        page.goto("/compare")  # so that the styles are there, and the page could be painted at once
        page.add_init_script(f"({OBSERVE})()")
        page.goto(path)
        page.wait_for_function("window.seen.paint !== null")
        assert page.evaluate(MEASURE)["shift"] == 0


@contextmanager
def arriving_in_pieces(url):
    """Yield the address of a service whose responses come in pieces of a packet, each a moment after the last."""

    class InPieces(BaseHTTPRequestHandler):
        def do_GET(self):
            response = httpx2.get(url + self.path, headers={"Accept": self.headers["Accept"]}, timeout=patience())
            self.send_response(response.status_code)
            self.send_header("Content-Type", response.headers["Content-Type"])
            self.send_header("Cache-Control", response.headers.get("Cache-Control", "no-cache"))
            self.end_headers()
            end = len(response.content.partition(b"<footer")[0])  # it is short: several pieces of its own
            starts = [*range(0, end, 1_400), *range(end, len(response.content), 150)]
            for start, after in pairwise([*starts, len(response.content)]):
                self.wfile.write(response.content[start:after])
                time.sleep(0.03)

        def log_message(self, *_):
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), InPieces) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_every_page_is_looked_at():
    """A new page is one more for ``PAGES``."""
    known = [path.partition("?")[0] for path, _ in browsing.PAGES.values()]
    missing = [page for page in create_app().state.twins if not any(compile_path(page)[0].fullmatch(x) for x in known)]
    assert missing == []
