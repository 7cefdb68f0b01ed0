"""Read and write the packaged catalog: the scans of a whole library as compact JSON lines.

A file starts with a header line. Each architecture is a line, sorted by name. Parts that several architectures share (a
*structure*: slots without their counts, towers and target specs; and each *reason*) are lines of their own before the
first architecture that uses them. ``lines.py`` packs and unpacks the entries.

The file of an older library version holds the differences only. Its header names the version of the catalog it was
compared with (``base``) and the architectures with the same proposals and checks there (``same``); lines with ``edges``
hold renames of layers. An architecture in neither file did not exist then.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from ..domain.architectures import Architecture, ModelPart, PromptFacts
from ..domain.layers import Slot
from ..domain.mappings import Verification
from ..domain.scans import Proposal
from ..domain.versions import Rename, VersionedRename, parse_version
from ..domain.vocabulary import Library, Tower
from ..errors import InvalidRequest
from ..schema import to_json
from .layer_names import START as HISTORY
from .lines import Packer, Unpacker, to_text

if TYPE_CHECKING:
    from packaging.version import Version

FORMAT = 2
_EDGES = '{"edges":'


@dataclass(frozen=True, slots=True)
class CatalogHeader:
    """The versions a catalog file was made from."""

    library: Library
    library_version: str
    loradar: str
    peft: str
    """Version of PEFT whose entries are checked."""
    catalog: int = FORMAT
    """Version of the file format."""

    def __post_init__(self) -> None:
        """Reject other formats."""
        if self.catalog != FORMAT:
            message = f"catalog format {self.catalog!r}, not {FORMAT}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One architecture of a catalog: the result of its scan, or the reason why there is none."""

    architecture: Architecture
    method: str | None = None
    """Method of the scan, ``names`` or ``dataflow``."""
    untraced: tuple[Tower, ...] = ()
    """Towers whose roles come from names."""
    proof: str | None = None
    """As in ``Scan``."""
    prompt_facts: PromptFacts = field(default_factory=PromptFacts)
    """As in ``Scan``."""
    parts: tuple[ModelPart, ...] = ()
    """As in ``Scan``."""
    towers: dict[Tower, tuple[str, ...]] | None = None
    slots: tuple[Slot, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    checks: tuple[Verification, ...] = ()
    """Verification of each proposal, in the order of the proposals."""
    peft: tuple[tuple[str, Verification], ...] = ()
    """Verification of PEFT's own entries, by PEFT type."""
    unscanned: str | None = None
    """Reason why there is no scan."""
    digest: str | None = None
    """As in ``Scan``: a build of another version with the same digest needs no new scan."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The contents of a catalog file."""

    header: CatalogHeader
    entries: tuple[CatalogEntry, ...]


@dataclass(frozen=True, slots=True)
class OlderCatalog:
    """The scans of an older version."""

    catalog: Catalog
    """The whole catalog of that version; slots only of architectures the newer catalog does not have."""
    base: str
    """Version of the newer catalog."""
    renames: dict[str, tuple[VersionedRename, ...]]
    """Renames between the two versions, by architecture."""


def list_catalogs() -> list[Traversable]:
    """Return the packaged catalog files, sorted by name."""
    return _list_files("catalog")


def list_older() -> list[Traversable]:
    """Return the packaged files of older versions, sorted by name."""
    return [file for file in _list_files("versions") if not file.name.startswith(HISTORY)]


def list_make_ups() -> list[Traversable]:
    """Return the packaged files of composite types with other parts than the default ones, sorted by name."""
    return _list_files("make_ups")


def _list_files(name: str) -> list[Traversable]:
    folder = resources.files("loradar.data") / name
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def read_catalog(file: Traversable) -> Catalog:
    """Read a catalog file.

    Raises:
        InvalidRequest: If a line is not one of a catalog; the message gives its number.
    """
    with file.open(encoding="utf-8") as lines:
        return _read_numbered(enumerate(lines, start=1), str(file))


def _read_numbered(numbered: Iterator[tuple[int, str]], file: str) -> Catalog:
    """Read the numbered lines of a catalog file."""
    number, entries = 1, list[CatalogEntry]()
    try:
        first = json.loads(next(numbered)[1])
        header = CatalogHeader(*(first[each.name] for each in fields(CatalogHeader)))
        unpacker = Unpacker(header.library, header.library_version)
        for number, line in numbered:  # noqa: B007 - the message names it
            found = unpacker.read(json.loads(line))
            entries += [CatalogEntry(**found)] if found else []
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        message = f"Invalid catalog line {number} in {file} ({type(error).__name__}: {error}): make the catalog again."
        raise InvalidRequest(message, file=file, line=number) from error
    return Catalog(header, tuple(entries))


def catalog_lines(header: CatalogHeader, entries: Iterable[CatalogEntry]) -> Iterator[str]:
    """Yield the lines of a catalog file without line ends; equal entries give equal lines.

    Args:
        header: The versions the entries were made from.
        entries: Sorted by name.
    """
    yield to_text(to_json(header))
    packer = Packer()
    for entry in entries:
        if entry.unscanned is not None:
            yield to_text({"name": entry.architecture.name, "unscanned": entry.unscanned})
        else:
            yield from packer.lines(entry)


def read_all_older(files: Iterable[Traversable], catalogs: Iterable[Catalog]) -> list[OlderCatalog]:
    """Read the files of older versions, newest first; each was compared with a catalog or with one of a newer file."""
    found: list[OlderCatalog] = []
    known = [*catalogs]
    for file in sorted(files, key=_version_of, reverse=True):
        older = read_older(file, known)
        if older:
            found.append(older)
            known.append(older.catalog)
    return found


def _version_of(file: Traversable) -> "Version":
    """Return the version of a library that a catalog file is of, or the least if it has none."""
    try:
        with file.open(encoding="utf-8") as lines:
            return parse_version(json.loads(lines.readline())["library_version"])
    except (ValueError, KeyError, TypeError):
        return parse_version("0")  # reading the file reports it


def read_older(file: Traversable, bases: Iterable[Catalog]) -> OlderCatalog | None:
    """Read the file of an older version; ``None`` if the catalog it was compared with is not among ``bases``.

    Raises:
        InvalidRequest: If a line is not one of such a file, or the catalog lacks an architecture of ``same``.
    """
    with file.open(encoding="utf-8") as lines:
        numbered = [*enumerate(lines, start=1)]
    own = _read_numbered(((n, line) for n, line in numbered if not line.startswith(_EDGES)), str(file))
    header = json.loads(numbered[0][1])
    compared = (own.header.library, header.get("base"))
    base = next((b for b in bases if (b.header.library, b.header.library_version) == compared), None)
    if base is None:
        return None
    known = {entry.architecture.name: entry for entry in base.entries}
    try:
        same = [replace(as_of(known[name], own.header.library_version), slots=()) for name in header["same"]]
        edges = [json.loads(line) for _, line in numbered if line.startswith(_EDGES)]
        versions = (own.header.library_version, compared[1])
        renames = {edge["name"]: tuple(VersionedRename(*versions, *names) for names in edge["edges"]) for edge in edges}
    except (KeyError, TypeError, ValueError) as error:
        message = f"{file} does not fit the catalog ({type(error).__name__}: {error}). Make it again from both."
        raise InvalidRequest(message, file=str(file)) from error
    return OlderCatalog(Catalog(own.header, (*same, *own.entries)), base.header.library_version, renames)


def as_of(entry: CatalogEntry, version: str) -> CatalogEntry:
    """Return the entry as an equal scan of another version would have made it."""
    return replace(
        entry,
        architecture=replace(entry.architecture, library_version=version),
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
    same: list[str] = []
    different: list[CatalogEntry] = []
    for entry in older.entries:
        newer = known.get(entry.architecture.name)
        if newer is None or entry.unscanned is not None:
            different.append(entry)
        elif _facts(entry) == _facts(newer):
            same.append(entry.architecture.name)
        else:
            different.append(replace(entry, slots=(), towers={}, digest=None))
    lines = catalog_lines(older.header, different)
    yield to_text(json.loads(next(lines)) | {"base": base.header.library_version, "same": same})
    for name, edges in sorted(renames.items()):
        if edges:
            yield to_text({"edges": [[edge.old, edge.new, edge.says] for edge in edges], "name": name})
    yield from lines


def _facts(entry: CatalogEntry) -> tuple[object, ...]:
    """Return the facts in which equal scans of two versions agree: proposals without reasons and blocks, and checks."""
    unversioned = as_of(entry, "")
    bare = tuple(replace(proposal, reasons=(), coverage=()) for proposal in entry.proposals)
    return bare, unversioned.checks, dict(unversioned.peft)
