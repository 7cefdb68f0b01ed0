"""Write the pages of the service as files, each as the service renders it, with links between the files."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from fastapi import FastAPI

from ...errors import InvalidRequest, LoradarError, WorkerFailed
from ...references.knowledge import load
from ...registry import Registry
from ...settings import RequestLimits, Settings
from ..app import create_app
from ..pages import assets
from ..pages.rendering import CONTENT_SECURITY_POLICY
from .paths import FILES, SERVED, Address, SitePaths

MARK = "loradar-site.json"
"""File by which a folder is known as a site, which a new one may replace."""

ADDED = ("site.css", "site.js")
UNLIMITED = RequestLimits(*[10**9] * 4)


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        file: Its path in the folder.
        size: Its bytes.
        is_architecture: Whether it is the page of an architecture.
    """

    file: str
    size: int
    is_architecture: bool


def write_site(
    settings: Settings, folder: Path, wanted: tuple[str, ...] = (), service: str | None = None
) -> Iterator[Written]:
    """Write a site, and yield each file.

    Args:
        settings: The settings, of which the registry's database is used.
        folder: The folder: not there yet, empty, or with an earlier site, which is replaced.
        wanted: References of the architectures; all if none.
        service: URL of a service that links to other pages lead to.

    Raises:
        InvalidRequest: If the folder has other files.
        UnknownArchitecture: If the registry does not know an architecture that is wanted.
        WorkerFailed: If the service fails to render a page; names it.
    """
    _check_folder(folder)
    with Registry.open(settings) as registry:
        for reference in wanted:
            registry.get_architecture(*reference.split(":", 1))
        references = wanted or tuple(registry.list_references())
        index = make_index(registry, references)
        serial = registry.serial()
    paths = SitePaths(references, service)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        for file, content in _render(create_app(replace(settings, limits=UNLIMITED)), paths, references):
            target = new / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            is_architecture = file.startswith("architectures/") and file.endswith(".html") and "/index" not in file
            yield Written(file, len(content), is_architecture)
        mark = {"loradar": metadata.version("loradar"), "serial": serial, "architectures": len(references)}
        (new / "search-index.js").write_text(
            f"self.loradarIndex={json.dumps(index, separators=(',', ':'))};\n", "utf-8"
        )
        (new / "_headers").write_text(f"/*\n  Content-Security-Policy: {CONTENT_SECURITY_POLICY}\n", "utf-8")
        (new / MARK).write_text(json.dumps(mark), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        message = f"{folder} is not empty, and has no earlier site ({MARK}): give another folder."
        raise InvalidRequest(message, folder=str(folder))


def make_index(registry: Registry, references: tuple[str, ...]) -> list[list[str]]:
    """Return library, name and other names of each architecture: its class, nicknames and checkpoints."""
    kept = frozenset(references)
    other: dict[str, dict[str, None]] = {reference: {} for reference in references}
    known = load()
    for fact in (*(fact for facts in known.keys.values() for fact in facts), *known.repos.values()):
        if fact.reference in kept:
            other[fact.reference].setdefault(fact.written)
    found = []
    for summary in registry.list_architectures():
        own = summary.architecture
        if own.reference in kept:
            names = dict.fromkeys([own.class_name or "", *other[own.reference]])
            found.append([own.library, own.name, *(name for name in names if name and name != own.name)])
    return found


def _render(app: FastAPI, paths: SitePaths, references: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield the file and content of every page that the first pages lead to, of each architecture, and its JSON."""
    due = [Address(path) for path in (*SERVED, *FILES)]
    due += [Address(assets.path_of(name)) for name in ADDED]
    for library, _, name in (reference.partition(":") for reference in references):
        due.append(Address(f"/architectures/{library}/{quote(name, safe='')}"))
    known = {paths.file_of(address) for address in due}
    with asyncio.Runner() as runner:
        while due:
            address = due.pop()
            file = paths.file_of(address)
            assert file is not None  # noqa: S101 - those without are no links
            content = runner.run(_get(app, address, is_page=file.endswith(".html")))
            if file.endswith(".html"):
                text, linked = paths.rewrite(_adapt(content.decode(), file), file)
                content = text.encode()
                for each in linked:
                    if (other := paths.file_of(each)) not in known:
                        known.add(other)
                        due.append(each)
            yield file, content


def _adapt(html: str, file: str) -> str:
    """Return a page with the script that searches the shipped index, and the styles of what needs a service."""
    css, script = (assets.path_of(name) for name in ADDED)
    up = "../" * file.count("/")
    html = html.replace("</head>", f'<link rel="stylesheet" href="{css}">\n</head>', 1)
    # Before the script of all pages, which uses the search that this one gives.
    own = f'<script src="{script}" data-root="{up or "./"}" defer></script>\n<script src="'
    return html.replace('<script src="', own, 1)


async def _get(app: FastAPI, address: Address, *, is_page: bool) -> bytes:
    """Return the response of the service to a browser, or to a program."""
    accept = b"text/html" if is_page else b"application/json" if address.path.startswith("/v1") else b"*/*"
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(address.path),
        "raw_path": address.path.encode(),
        "query_string": urlencode(address.query).encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept", accept)],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "state": {},
    }
    status, body = 500, bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        body.extend(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except LoradarError:
        raise
    except Exception as error:
        raise WorkerFailed(f"{address.path} cannot be rendered: {error!r}.", reason="error") from error
    if status != HTTPStatus.OK:
        raise WorkerFailed(f"{address.path} cannot be rendered: status {status}.", reason="error", status=status)
    return bytes(body)
