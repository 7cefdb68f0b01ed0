"""Mend in every built page what axe-core reports of the HTML that Sphinx and Furo write."""

import re
from pathlib import Path

from sphinx.application import Sphinx

PARAMETERS = re.compile(r'<dl>\n((?:<dd><em class="sig-param">.*?</dd>\n)+)</dl>')
"""The parameters of a long signature: Sphinx writes a list of definitions without a term."""

REPLACED = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    ('<aside class="toc-drawer">', '<aside class="toc-drawer" aria-label="On this page">'),
    # Sphinx's typography, which is off, would make a dash of it.
    ("</strong> -- ", "</strong>: "),
    ("</strong></a> -- ", "</strong></a>: "),
    # The corner of a table with names of rows is no header.
    ('<th class="head"><p></p></th>', '<td class="head"></td>'),
    # A block that scrolls must be reachable by keyboard.
    ("<pre>", '<pre tabindex="0">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    ('<div id="search-results">', '<h1 class="hidden-title">Search</h1><div id="search-results">'),
)


def mend_page(html: str) -> str:
    """Return a page that axe-core finds nothing in."""
    for old, new in REPLACED:
        html = html.replace(old, new)
    return PARAMETERS.sub(lambda match: f'<span class="sig-list">{items(match[1])}</span>', html)


def items(definitions: str) -> str:
    """Return the definitions of a list as lines."""
    return definitions.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")


def mend_all(app: Sphinx, failure: Exception | None) -> None:
    """Mend every page at the end of a build that has succeeded; a page is left alone if it was mended before."""
    for path in Path(app.outdir).rglob("*.html") if failure is None else ():
        text = path.read_text("utf-8")
        if (mended := mend_page(text)) != text:
            path.write_text(mended, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the function above."""
    app.connect("build-finished", mend_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
