"""What a library's older versions differ in from its catalog, kept as JSON lines beside it. No torch and no SQL.

A file is a catalog of the older version (``loradar.catalog.entries``) of which only what differs is written. Its
header names the version of the catalog it was compared with (``base``) and the architectures whose proposals and
checks are the same there (``same``); lines with ``edges`` say what the layers of an architecture were called. What is
in neither file did not exist then.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from ..domain.versions import Rename, VersionedRename
from ..errors import InvalidRequest
from .entries import Catalog, CatalogEntry, catalog_lines, read_numbered
from .lines import to_text

_EDGES = '{"edges":'


@dataclass(frozen=True, slots=True)
class OlderCatalog:
    """What the scans of an older version found.

    Attributes:
        catalog: As a catalog of that version, whole; slots only of what the newer catalog does not have.
        base: Version of the newer catalog.
        renames: Every rename on the way to the newer catalog, by architecture.
    """

    catalog: Catalog
    base: str
    renames: dict[str, tuple[VersionedRename, ...]]


def list_older() -> list[Traversable]:
    """Return the files on older versions that come with loradar, sorted by name."""
    folder = resources.files("loradar.data") / "versions"
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def read_older(file: Traversable, bases: Iterable[Catalog]) -> OlderCatalog | None:
    """Read a file on an older version; ``None`` if the catalog it was compared with is not among ``bases``.

    Raises:
        InvalidRequest: If a line of it is none of such a file, or the catalog lacks what is said to be the same.
    """
    with file.open(encoding="utf-8") as lines:
        numbered = [*enumerate(lines, start=1)]
    own = read_numbered(((n, line) for n, line in numbered if not line.startswith(_EDGES)), str(file))
    header = json.loads(numbered[0][1])
    compared = (own.header.library, header.get("base"))
    base = next((one for one in bases if (one.header.library, one.header.library_version) == compared), None)
    if base is None:
        return None
    known = {entry.architecture.name: entry for entry in base.entries}
    try:
        same = [_as_of(known[name], own.header.library_version) for name in header["same"]]
        edges = [json.loads(line) for _, line in numbered if line.startswith(_EDGES)]
        renames = {edge["name"]: _to_renames(edge, own.header.library_version, compared[1]) for edge in edges}
    except (KeyError, TypeError, ValueError) as error:
        message = f"{file} does not fit the catalog ({type(error).__name__}: {error}). Make it again from both."
        raise InvalidRequest(message, file=str(file)) from error
    return OlderCatalog(Catalog(own.header, (*same, *own.entries)), base.header.library_version, renames)


def _as_of(entry: CatalogEntry, version: str) -> CatalogEntry:
    """Return the entry as the scan of another version would have made it, which found the same."""
    return replace(
        entry,
        architecture=replace(entry.architecture, library_version=version),
        slots=(),
        checks=tuple(replace(check, library_version=version) for check in entry.checks),
        peft=tuple((peft_type, replace(check, library_version=version)) for peft_type, check in entry.peft),
    )


def _to_renames(edge: dict[str, Any], older: str, newer: str) -> tuple[VersionedRename, ...]:
    return tuple(VersionedRename(older, newer, *names) for names in edge["edges"])


def older_lines(older: Catalog, base: Catalog, renames: dict[str, tuple[Rename, ...]]) -> Iterator[str]:
    """Yield the lines of a file on an older version, without their line ends.

    Args:
        older: The whole catalog of the older version.
        base: The catalog of the version it is compared with.
        renames: From the older to the newer version, by architecture; empty ones are left out.
    """
    known = {entry.architecture.name: entry for entry in base.entries if entry.unscanned is None}
    same = [entry.architecture.name for entry in older.entries if _is_same(entry, known)]
    lines = catalog_lines(older.header, [*_own(older.entries, known, set(same))])
    extra = {"base": base.header.library_version, "same": same}
    yield to_text(json.loads(next(lines)) | extra)
    for name, edges in sorted(renames.items()):
        if edges:
            yield to_text({"edges": [[edge.old, edge.new, edge.says] for edge in edges], "name": name})
    yield from lines


def _is_same(entry: CatalogEntry, known: dict[str, CatalogEntry]) -> bool:
    """Tell whether both versions have the same proposals, sizes and checks; reasons and blocks name layers."""
    newer = known.get(entry.architecture.name)
    return newer is not None and entry.unscanned is None and _facts(entry) == _facts(newer)


def _facts(entry: CatalogEntry) -> tuple[object, ...]:
    as_of = _as_of(entry, "")
    bare = tuple(replace(proposal, reasons=(), coverage=()) for proposal in entry.proposals)
    return bare, as_of.checks, dict(as_of.peft)


def _own(entries: Iterable[CatalogEntry], known: dict[str, CatalogEntry], same: set[str]) -> Iterator[CatalogEntry]:
    """Yield what is not the same; what the newer version has as well goes without its slots, which are told there."""
    for entry in entries:
        name = entry.architecture.name
        if name not in same:
            yield replace(entry, slots=(), towers={}) if name in known and entry.unscanned is None else entry
