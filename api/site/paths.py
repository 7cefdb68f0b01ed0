"""The files of a static site: which pages of the service it has, and where each stands."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from html import escape, unescape
from posixpath import relpath
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ..pages.reports.compare_page import EXAMPLES

SERVED = ("/", "/architectures", "/audit", "/compare", "/placement", "/docs", "/search")
"""Pages that every site has; the search answers from an index that is shipped."""

FILES = ("/llms.txt", "/openapi.json")
QUERIES = {"/architectures": {"library", "after"}, "/audit": {"library_version", "verdict"}}
"""Filters whose pages are written too; every other one needs the service."""

_ARCHITECTURE = re.compile(r"/(v1/)?architectures/([^/]+)/([^/]+)(/badge\.svg)?")
_TWIN = re.compile(r"/v1/(audit|placement|compare|architectures)")
_LINK = re.compile(r'\b(href|src|action|formaction|data-suggest|data-page|data-preview)="(/[^"]*)"')
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]")


@dataclass(frozen=True)
class Address:
    """A path of the service with its query."""

    path: str
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address in a link, without its fragment."""
        parts = urlsplit(text)
        return cls(parts.path, tuple(parse_qsl(parts.query, keep_blank_values=True)))


class SitePaths:
    """The files of a site.

    Args:
        references: The architectures that it has.
        service: URL of a service, for what no file has; without one, links to that are no links.
    """

    def __init__(self, references: Collection[str], service: str | None = None) -> None:
        self._references = frozenset(references)
        self._service = service.rstrip("/") if service else None
        self._examples = {tuple(sorted(query.items())) for _, query in EXAMPLES}

    def file_of(self, address: Address) -> str | None:
        """Return the file of a page or of its JSON, from the root of the site; ``None`` if it has none."""
        path, query = address.path, address.query
        if path.startswith("/static/") or (path in FILES and not query):
            return path[1:]
        if matched := _ARCHITECTURE.fullmatch(path):
            return self._file_of_architecture(*matched.groups()) if not query else None
        if (twin := _TWIN.fullmatch(path)) and self._has(f"/{twin[1]}", query):
            return f"v1/{twin[1]}{_slug(query)}.json"
        if path in SERVED and self._has(path, query):
            folder = path[1:] + "/" if path != "/" else ""
            return f"{folder}index{_slug(query)}.html"
        return None

    def _file_of_architecture(self, version: str | None, library: str, name: str, badge: str | None) -> str | None:
        library, name = unquote(library), unquote(name)
        if f"{library}:{name}" not in self._references:
            return None
        ending = ".json" if version else badge.replace("/", ".") if badge else ".html"
        return f"{version or ''}architectures/{_clean(library)}/{_clean(name)}{ending}"

    def _has(self, path: str, query: tuple[tuple[str, str], ...]) -> bool:
        if path == "/compare":
            return not query or tuple(sorted(query)) in self._examples
        return {name for name, _ in query} <= QUERIES.get(path, set())

    def rewrite(self, html: str, file: str) -> tuple[str, list[Address]]:
        """Return a page with links to files in place of paths of the service, and the pages that it links.

        Args:
            html: The page, whose links are absolute paths in double quotes.
            file: Its own file, to which links are relative.
        """
        linked: list[Address] = []

        def replace(found: re.Match[str]) -> str:
            name, text = found[1], unescape(found[2])
            if name.startswith("data-"):  # of scripts that request JSON; the search has an index of its own
                return 'data-suggest="index"' if name == "data-suggest" else ""
            address = Address.parse(text)
            target = self.file_of(address)
            if target is None:
                if self._service:
                    return f'{name}="{escape(self._service + text)}"'
                return 'data-off="needs the service"'
            linked.append(address)
            fragment = urlsplit(text).fragment
            relative = quote(relpath(target, file.rpartition("/")[0] or "."))
            return f'{name}="{relative}{f"#{escape(fragment)}" if fragment else ""}"'

        return _LINK.sub(replace, html), linked


def _clean(name: str) -> str:
    """Return a name as it is safe in a file name and a link; a digest tells changed ones apart."""
    cleaned = _UNSAFE.sub("_", name)
    return name if cleaned == name and name[0] != "." else f"{cleaned.lstrip('.')}-{_digest(name)}"


def _slug(query: tuple[tuple[str, str], ...]) -> str:
    """Return the part of a file name that stands for a query."""
    if not query:
        return ""
    text = "-".join(f"{name}-{value}" for name, value in sorted(query))
    return f".{text if not _UNSAFE.search(text) else _digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:10]
