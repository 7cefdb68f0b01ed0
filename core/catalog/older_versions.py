"""Read and write the differences of older library versions from the catalog, as JSON lines.

A file is a catalog of the older version (``loradar.catalog.entries``) with the differences only. Its header names the
version of the catalog it was compared with (``base``) and the architectures with the same proposals and checks there
(``same``); lines with ``edges`` hold renames of layers. An architecture in neither file did not exist then.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable

from ..domain.versions import Rename, VersionedRename
from ..errors import InvalidRequest
from .entries import Catalog, CatalogEntry, catalog_lines, read_numbered
from .lines import to_text

_EDGES = '{"edges":'


@dataclass(frozen=True, slots=True)
class OlderCatalog:
    """The scans of an older version."""

    catalog: Catalog
    """The whole catalog of that version; slots only of architectures the newer catalog does not have."""
    base: str
    """Version of the newer catalog."""
    renames: dict[str, tuple[VersionedRename, ...]]
    """Renames between the two versions, by architecture."""


def list_older() -> list[Traversable]:
    """Return the packaged files of older versions, sorted by name."""
    folder = resources.files("loradar.data") / "versions"
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def read_older(file: Traversable, bases: Iterable[Catalog]) -> OlderCatalog | None:
    """Read the file of an older version; ``None`` if the catalog it was compared with is not among ``bases``.

    Raises:
        InvalidRequest: If a line is not one of such a file, or the catalog lacks an architecture of ``same``.
    """
    with file.open(encoding="utf-8") as lines:
        numbered = [*enumerate(lines, start=1)]
    own = read_numbered(((n, line) for n, line in numbered if not line.startswith(_EDGES)), str(file))
    header = json.loads(numbered[0][1])
    compared = (own.header.library, header.get("base"))
    base = next((b for b in bases if (b.header.library, b.header.library_version) == compared), None)
    if base is None:
        return None
    known = {entry.architecture.name: entry for entry in base.entries}
    try:
        same = [_as_of(known[name], own.header.library_version) for name in header["same"]]
        edges = [json.loads(line) for _, line in numbered if line.startswith(_EDGES)]
        versions = (own.header.library_version, compared[1])
        renames = {edge["name"]: tuple(VersionedRename(*versions, *names) for names in edge["edges"]) for edge in edges}
    except (KeyError, TypeError, ValueError) as error:
        message = f"{file} does not fit the catalog ({type(error).__name__}: {error}). Make it again from both."
        raise InvalidRequest(message, file=str(file)) from error
    return OlderCatalog(Catalog(own.header, (*same, *own.entries)), base.header.library_version, renames)


def _as_of(entry: CatalogEntry, version: str) -> CatalogEntry:
    """Return the entry as an equal scan of another version would have made it."""
    return replace(
        entry,
        architecture=replace(entry.architecture, library_version=version),
        slots=(),
        checks=tuple(replace(check, library_version=version) for check in entry.checks),
        peft=tuple((peft_type, replace(check, library_version=version)) for peft_type, check in entry.peft),
    )


def older_lines(older: Catalog, base: Catalog, renames: dict[str, tuple[Rename, ...]]) -> Iterator[str]:
    """Yield the lines of the file of an older version, without line ends.

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
    """Return whether both versions have equal proposals, sizes and checks, apart from reasons and blocks."""
    newer = known.get(entry.architecture.name)
    return newer is not None and entry.unscanned is None and _facts(entry) == _facts(newer)


def _facts(entry: CatalogEntry) -> tuple[object, ...]:
    as_of = _as_of(entry, "")
    bare = tuple(replace(proposal, reasons=(), coverage=()) for proposal in entry.proposals)
    return bare, as_of.checks, dict(as_of.peft)


def _own(entries: Iterable[CatalogEntry], known: dict[str, CatalogEntry], same: set[str]) -> Iterator[CatalogEntry]:
    """Yield the entries that differ, without slots where the newer version has the architecture too."""
    for entry in entries:
        name = entry.architecture.name
        if name not in same:
            yield replace(entry, slots=(), towers={}) if name in known and entry.unscanned is None else entry
