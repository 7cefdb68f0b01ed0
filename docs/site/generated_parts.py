"""Make the parts of the site that are too long or too changeable for a page: architectures, errors and records."""

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from loradar import errors
from loradar.catalog.entries import list_catalogs, read_catalog

sys.path.append(str(Path(__file__).parent.parent / "scripts"))

import support_matrix

VOCABULARY = "loradar.domain.vocabulary"
TABLE = "evidence/support-matrix.json"


@cache
def list_architectures() -> list[dict[str, Any]]:
    """Return the architectures of all packaged catalogs, with their verdicts."""
    found = {catalog.header.library: catalog for catalog in map(read_catalog, list_catalogs())}
    return [*support_matrix.list_architectures([found[library] for library in support_matrix.LIBRARIES])]


def support_cells(line: dict[str, Any]) -> Iterator[str]:
    """Yield the cells of an architecture's line."""
    yield line["library"]
    yield f'<code title="{escape(line["class"])}">{escape(line["name"])}</code>'
    for preset in support_matrix.PRESETS:
        cell = line["presets"].get(preset, {"status": None, "layers": ""})
        yield f"{support_matrix.MARKS[cell['status']]} {cell['layers']}"
    yield line["methods_key"]
    yield support_matrix.MARKS[line["peft"]]


def draw_table(name: str, head: Sequence[str], rows: Iterable[Iterable[str]]) -> nodes.Node:
    """Return a table as HTML, which scrolls where it is too wide; as nodes, 2,000 rows would take seconds."""
    header = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    table = f'<table id="{name}"><thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table>'
    region = f'<div class="wide-table" role="region" aria-label="{name}" tabindex="0">{table}</div>'
    return nodes.raw("", region, format="html")


class SupportTable(SphinxDirective):
    """``{support-table}``: a line for every architecture; ``support-table.js`` adds a search where scripts run."""

    def run(self) -> list[nodes.Node]:
        """Return the table, and a link to the same as JSON."""
        link = f'<p>The same as <a href="{Path(TABLE).name}">JSON</a>, with the class of each.</p>'
        head = ("library", "architecture", *support_matrix.PRESETS, "methods", "PEFT")
        lines = map(support_cells, list_architectures())
        return [nodes.raw("", link, format="html"), draw_table("architectures", head, lines)]


class ErrorTable(SphinxDirective):
    """``.. error-table::``: the tree of errors, with the code, status and exit code of each."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        head = ("class", "code", "status", "exit code", "meaning")
        return [draw_table("errors", head, error_rows(errors.LoradarError))]


class Records(SphinxDirective):
    """``.. records::``: a section for each module named in a line; of a package, for those that no page names."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the sections, each of which documents a module."""
        pages = Path(self.env.srcdir, "reference").glob("records-*.rst")
        named = frozenset(line.strip() for page in pages for line in page.read_text("utf-8").split("\n"))
        modules = [module for name in self.content if name for module in list_modules(name, named)]
        return self.parse_text_to_nodes("\n".join(map(describe_module, modules)), allow_section_headings=True)


def describe_module(name: str) -> str:
    """Return the section of a module as reStructuredText; autodoc leaves out its sets of words."""
    members = vars(importlib.import_module(name)).items()
    words = {key: get_args(value) for key, value in members if get_origin(value) is Literal and key[0] != "_"}
    types = (
        f".. py:type:: {name}.{key}\n\n   {', '.join(f'``{value}``' for value in values)}\n"
        for key, values in words.items()
        if name == VOCABULARY
    )
    body = f".. automodule:: {name}\n   :members:\n   :undoc-members:\n"
    return "\n".join((name, "-" * len(name), "", body, *types))


def list_modules(name: str, named: frozenset[str]) -> Iterator[str]:
    """Yield a module, or the modules of a package that have public classes and are not named elsewhere."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        yield name
        return
    for found in pkgutil.walk_packages(module.__path__, f"{name}."):
        members = vars(importlib.import_module(found.name)).items()
        public = (one for key, one in members if not key.startswith("_") and inspect.isclass(one))
        if found.name not in named and any(one.__module__ == found.name for one in public):
            yield found.name


def error_rows(error: type[errors.LoradarError], depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Yield the line of an error, whose name links to the class, then those of the errors that derive from it."""
    name = f'<a href="#loradar.errors.{error.__name__}"><code>{error.__name__}</code></a>'
    meaning = escape(str(error.__doc__).partition("\n")[0].replace("``", "`"))
    branch = "&emsp;" * (depth - 1) + "└ " if depth else ""
    yield branch + name, f"<code>{error.code}</code>", str(error.status), str(error.exit_code), meaning
    for derived in error.__subclasses__():
        if derived.__module__ == error.__module__:
            yield from error_rows(derived, depth + 1)


def write_table(app: Sphinx, failure: Exception | None) -> None:
    """Write the architectures as JSON beside the page."""
    if failure is None and app.builder.format == "html":
        Path(app.outdir, TABLE).write_text(json.dumps(list_architectures(), separators=(",", ":")) + "\n", "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives, and the JSON at the end of a build."""
    app.add_directive("support-table", SupportTable)
    app.add_directive("error-table", ErrorTable)
    app.add_directive("records", Records)
    app.connect("build-finished", write_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
