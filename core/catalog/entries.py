"""Read and write the packaged catalog: the scans of a whole library as compact JSON lines.

A file starts with a header line. Each architecture is a line, sorted by name. Parts that several architectures share (a
*structure*: slots without their counts, towers and target specs; and each *reason*) are lines of their own before the
first architecture that uses them. ``lines.py`` packs and unpacks the entries.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable

from ..domain.architectures import Architecture, PromptFacts
from ..domain.layers import Slot
from ..domain.mappings import Verification
from ..domain.scans import Proposal
from ..domain.vocabulary import Library, Tower
from ..errors import InvalidRequest
from ..schema import to_json
from .lines import Packer, Unpacker, to_text

FORMAT = 2


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
    towers: dict[Tower, tuple[str, ...]] | None = None
    slots: tuple[Slot, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    checks: tuple[Verification, ...] = ()
    """Verification of each proposal, in the order of the proposals."""
    peft: tuple[tuple[str, Verification], ...] = ()
    """Verification of PEFT's own entries, by PEFT type."""
    unscanned: str | None = None
    """Reason why there is no scan."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The contents of a catalog file."""

    header: CatalogHeader
    entries: tuple[CatalogEntry, ...]


def list_catalogs() -> list[Traversable]:
    """Return the packaged catalog files, sorted by name."""
    folder = resources.files("loradar.data") / "catalog"
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def read_catalog(file: Traversable) -> Catalog:
    """Read a catalog file.

    Raises:
        InvalidRequest: If a line is not one of a catalog; the message gives its number.
    """
    with file.open(encoding="utf-8") as lines:
        return read_numbered(enumerate(lines, start=1), str(file))


def read_numbered(numbered: Iterator[tuple[int, str]], file: str) -> Catalog:
    """Read the numbered lines of a catalog file.

    Raises:
        InvalidRequest: As ``read_catalog``.
    """
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
