"""One Chromium and one service for the tests of a file; every test has a profile of its own, and no page does wrong."""

import os
from contextlib import ExitStack
from urllib.parse import urlsplit

import browsing
import pytest
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; without one the tests are skipped, but not in CI."""
    if browsing.find_chromium() is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(browsing.NONE)
    with browsing.chromium() as running:
        expect.set_options(timeout=1000 * browsing.patient())  # else five seconds, which a busy machine may take
        yield running


@pytest.fixture(scope="module")
def service(seeded, tmp_path_factory):
    """A running service with people in it."""
    with browsing.serving(tmp_path_factory.mktemp("browsed"), seeded) as running:
        yield running


@pytest.fixture
def visit(browser, service):
    """Open a page in a profile of its own, as a person if one is named; nothing may be wrong with it in the end.

    Wrong are errors in the console, such as one of the Content-Security-Policy, and requests to anywhere else.
    """
    with ExitStack() as stack:
        opened = []

        def open_page(person=None, path=None, expects=(), **options):
            page, seen = stack.enter_context(browsing.visiting(browser, service, person, **options))
            opened.append((seen, expects))
            if path:
                page.goto(path)
            return page

        yield open_page
        own = urlsplit(service.url).netloc
        for seen, expects in opened:
            statuses = [f"the server responded with a status of {status} " for status in expects]
            assert [problem for problem in seen.problems if not any(map(problem.__contains__, statuses))] == []
            assert {urlsplit(url).netloc for url in seen.requests if not url.startswith(("data:", "blob:"))} <= {own}
