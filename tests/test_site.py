"""The documentation site: it builds without a warning, documents every public name, and needs no other host."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import browsing
import pytest
import typer
from axe_playwright_python.sync_playwright import Axe
from patience import patience

import loradar
from loradar import domain, errors
from loradar.cli import app
from loradar.client import Client

ROOT = Path(__file__).parent.parent
PARTS = {"src", "srcset", "href", "data", "poster"}
FETCHED = {"script", "img", "source", "iframe", "video", "audio", "embed", "object", "input"}
"""Elements whose address a browser fetches by itself; of ``link`` that depends on ``rel``."""


class Addresses(HTMLParser):
    """The addresses of a page: those that a browser fetches, those that a reader may follow, and the ids."""

    def __init__(self, html):
        super().__init__()
        self.fetched, self.followed, self.ids = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        """Sort the addresses of one element."""
        of = dict(attributes)
        self.ids.add(of.get("id"))
        found = [of[name] for name in PARTS & of.keys() if of[name]]
        is_fetched = tag in FETCHED or (tag == "link" and of.get("rel") not in {"canonical", "next", "prev", "author"})
        (self.fetched if is_fetched else self.followed).extend(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, made once; every warning is an error."""
    if "CI" not in os.environ:
        pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
    out = tmp_path_factory.mktemp("site")
    options = ("--fail-on-warning", "--keep-going", "-q", "-c", ROOT / "docs/site", "-d", out / "doctrees")
    done = subprocess.run(  # noqa: S603 - our own pages
        [sys.executable, "-P", "-m", "sphinx", *map(str, options), str(ROOT / "docs"), str(out / "html")],
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site):
    """The addresses of every page, by its path."""
    return {path: Addresses(path.read_text("utf-8")) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def inventory(site):
    """What the site describes, by kind."""
    from sphinx.util.inventory import InventoryFile  # noqa: PLC0415 - the extra 'docs' may be missing

    return InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")


@pytest.fixture(scope="module")
def documented(inventory):
    """The Python names that the reference documents."""
    return {name for kind, names in inventory.data.items() if kind.startswith("py:") for name in names}


def records():
    """Yield the qualified name of every public class of the domain."""
    for module in pkgutil.walk_packages(domain.__path__, f"{domain.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and value.__module__ == module.name and not name.startswith("_"):
                yield f"{module.name}.{name}"


def test_every_public_name_is_documented(documented):
    """Of the package, and of the client with its methods."""
    expected = {f"loradar.{name}" for name in loradar.__all__} - {"loradar.LoradarError"}
    expected |= {f"loradar.Client.{name}" for name in dir(Client) if not name.startswith("_")}
    assert not sorted(expected - documented)


def test_every_error_is_documented(site, documented):
    """With its class, and with its code in the table, below the class it derives from."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert all("__doc__" in vars(one) and one.__doc__ for one in classes)  # else the site has that of its base
    table = (site / "reference/errors.html").read_text("utf-8").partition('<table id="errors">')[2]
    assert not {f"loradar.errors.{one.__name__}" for one in classes} - documented
    assert all(f"<code>{one.code}</code><td>{one.status}<td>{one.exit_code}<td>" in table for one in classes)
    lines = {one: table.index(f'<a href="#loradar.errors.{one.__name__}">') for one in classes}
    assert all(lines[one.__base__] < lines[one] for one in classes if one is not errors.LoradarError)


def test_every_record_is_documented(documented):
    """A record of the domain is the JSON of a response."""
    expected = set(records())
    assert len(expected) > 60
    assert not sorted(expected - documented)


def list_options(command, name="loradar"):
    """Yield (name of the command, option) of every command."""
    for option in command.params if name != "loradar" else ():
        if option.opts[0].startswith("-") and not option.hidden:
            yield name, option
    for word, inner in getattr(command, "commands", {}).items():
        yield from list_options(inner, f"{name} {word}")


def test_every_option_is_documented(inventory):
    """Of every command, with a text of its own."""
    options = [*list_options(typer.main.get_command(app))]
    assert len(options) > 150
    assert not [f"{name} {option.opts[0]}" for name, option in options if not option.help]
    names = {(name, each) for name, option in options for each in (*option.opts, *option.secondary_opts)}
    expected = {f"{name.replace(' ', '-')}.{each}" for name, each in names}
    assert not sorted(expected - {*inventory.data["std:cmdoption"]})


def test_no_page_needs_another_host(site, pages):
    """Neither an element nor a stylesheet fetches anything from elsewhere."""
    outside = {url for page in pages.values() for url in page.fetched if urlsplit(url).netloc}
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    outside |= {url for url in re.findall(r"url\(\s*['\"]?([^'\")]+)", styles) if re.match(r"(https?:)?//", url)}
    outside |= set(re.findall(r"@import[^;]*//[^;]*", styles))
    assert not outside


def test_pages_are_accessible(site):
    """What axe-core reports of the pages that Sphinx and Furo write is mended in each."""
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert not re.findall(
            r"<pre>|<div class=\"table|<aside [^>]*drawer\">|role=\"heading\">|<dl>\n<dd>|<th[^>]*><p><.p>",
            text,
        ), path
        assert not re.findall(r"<img(?![^>]*alt=\"[^\"]+\")[^>]*>", text), path


def test_every_link_leads_somewhere(pages):
    """To a file of the site, and to an id of the page where it names one."""
    broken = []
    for path, page in pages.items():
        for url in map(urlsplit, {*page.fetched, *page.followed}):
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            is_there = target.is_file() and (
                not url.fragment or target not in pages or unquote(url.fragment) in pages[target].ids
            )
            if not is_there:
                broken.append((path.name, url.geturl()))
    assert not broken


def test_the_table_of_architectures_is_there_without_scripts(site):
    """As many rows as the JSON beside it has lines, and each with its name."""
    lines = json.loads((site / "evidence/support-matrix.json").read_text("utf-8"))
    page = (site / "evidence/support-matrix.html").read_text("utf-8")
    table = page.partition('<table id="architectures">')[2].partition("</table>")[0]
    assert len(lines) > 2000
    assert table.partition("<tbody>")[2].count("<tr>") == len(lines)
    assert all(f">{line['name']}</code>" in table for line in lines)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; without one the tests are skipped, but not in CI."""
    if browsing.find_chromium() is None:
        stop = pytest.fail if "CI" in os.environ else pytest.skip
        stop(browsing.NONE)
    with browsing.chromium() as running:
        yield running


class Handler(SimpleHTTPRequestHandler):
    """Serve files, without a line for each request."""

    def log_message(self, *_):
        """Write nothing."""


@pytest.fixture(scope="module")
def address(site):
    """The URL of a server of the site's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def reader(browser, address):
    """A function that opens a page of the site; afterwards no page had an error or asked another host."""
    problems, context = [], browser.new_context()
    page = context.new_page()
    page.set_default_timeout(1000 * patience())
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else problems.append(request.url))

    def open_page(path):
        page.goto(f"{address}/{path}")
        return page

    yield open_page
    context.close()
    assert problems == []


def test_the_table_of_architectures_is_searched(reader):
    """Words of a name or class, and a library; the number found is announced."""
    page = reader("evidence/support-matrix.html")
    page.locator("form.table-search input").fill("qwen3_vl moe")
    names = page.locator("#architectures tbody tr:visible code").all_inner_texts()
    assert "qwen3_vl_moe" in names
    assert all("moe" in name for name in names)
    assert page.locator("form.table-search output").inner_text().startswith(f"{len(names)} of 2,")
    page.locator("form.table-search select").select_option("timm")
    assert page.locator("#architectures tbody tr:visible").count() == 0


def test_the_site_is_searched(reader):
    """By the index that is built with it."""
    page = reader("search.html?q=budget")
    page.wait_for_function("document.querySelectorAll('#search-results li').length > 3")


@pytest.mark.parametrize("path", ["start.html", "discovery/how.html", "reference/client-api.html"])
def test_axe_finds_nothing(reader, path):
    """In either colour scheme."""
    page = reader(path)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], scheme
