"""The catalog: what the scans of a whole library found, kept as compact JSON lines. No torch and no SQL in here.

A file starts with a header line. Each architecture is a line, sorted by name; what several have in common (slots
without their counts, towers, target specs: a *structure*; and each *reason*) is a line of its own, before the first of
them. ``catalog_lines`` packs and unpacks; here is what there is to pack.
"""

import json
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Json
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Self

from ..domain.coverage import Coverage
from ..domain.mappings import Verification
from ..domain.prompt_facts import PromptFacts
from ..domain.scans import Architecture, Proposal, Slot
from ..domain.targets import TargetSpec
from ..domain.vocabulary import Library, Tower
from ..errors import InvalidRequest
from .lines import Packer, Unpacker, to_text

FORMAT = 2


@dataclass(frozen=True, slots=True)
class CatalogHeader:
    """What a catalog file was made from: the library's version, loradar's, and that of PEFT's entries it checks."""

    library: Library
    library_version: str
    loradar: str
    peft: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "catalog": FORMAT,
            "library": self.library,
            "library_version": self.library_version,
            "loradar": self.loradar,
            "peft": self.peft,
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a header from its JSON form.

        Raises:
            ValueError: If the file is of another format.
        """
        if data["catalog"] != FORMAT:
            message = f"catalog format {data['catalog']!r}, not {FORMAT}"
            raise ValueError(message)
        return cls(data["library"], data["library_version"], data["loradar"], data["peft"])


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One architecture of a catalog: what its scan found, or why there is none.

    Attributes:
        method: How the scan told roles.
        untraced: Towers whose roles rest on names.
        proof: As for a scan.
        prompt_facts: As for a scan.
        checks: What each proposal hits, in the order of the proposals.
        peft: What PEFT's own entry hits, by PEFT type.
        unscanned: The reason why there is no scan.
    """

    architecture: Architecture
    method: str | None = None
    untraced: tuple[Tower, ...] = ()
    towers: dict[str, tuple[str, ...]] | None = None
    slots: tuple[Slot, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    checks: tuple[Verification, ...] = ()
    peft: tuple[tuple[str, Verification], ...] = ()
    unscanned: str | None = None
    proof: str | None = None
    prompt_facts: PromptFacts = field(default_factory=PromptFacts)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, whole: nothing is shared with other architectures."""
        if self.unscanned is not None:
            return {"architecture": self.architecture.to_dict(), "unscanned": self.unscanned}
        return {
            "architecture": self.architecture.to_dict(),
            "method": self.method,
            "untraced": list(self.untraced),
            "proof": self.proof,
            "prompt_facts": self.prompt_facts.to_dict(),
            "towers": {tower: list(prefixes) for tower, prefixes in (self.towers or {}).items()},
            "slots": [slot.to_dict() for slot in self.slots],
            "proposals": [proposal.to_dict() for proposal in self.proposals],
            "checks": [check.to_dict() for check in self.checks],
            "peft": [[peft_type, check.to_dict()] for peft_type, check in self.peft],
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build an entry from its JSON form."""
        architecture = Architecture.from_dict(data["architecture"])
        if "unscanned" in data:
            return cls(architecture, unscanned=data["unscanned"])
        return cls(
            architecture=architecture,
            method=data["method"],
            untraced=tuple(data["untraced"]),
            towers={tower: tuple(prefixes) for tower, prefixes in data["towers"].items()},
            slots=tuple(Slot(**slot) for slot in data["slots"]),
            proposals=tuple(_to_proposal(proposal) for proposal in data["proposals"]),
            checks=tuple(map(Verification.from_dict, data["checks"])),
            peft=tuple((peft_type, Verification.from_dict(check)) for peft_type, check in data["peft"]),
            proof=data["proof"],
            prompt_facts=PromptFacts.from_dict(data["prompt_facts"]),
        )


def _to_proposal(data: Json[str, Any]) -> Proposal:
    size = data["formula"] or {"per_rank": None, "fixed": None}
    return Proposal(
        data["peft_type"],
        data["preset"],
        TargetSpec.from_dict(data),
        data["matched"],
        size["per_rank"],
        size["fixed"],
        tuple(data["reasons"]),
        tuple(map(Coverage.from_dict, data["coverage"])),
        data["reached"],
    )


@dataclass(frozen=True, slots=True)
class Catalog:
    """A catalog file, read."""

    header: CatalogHeader
    entries: tuple[CatalogEntry, ...]


def list_catalogs() -> list[Traversable]:
    """Return the catalog files that come with loradar, sorted by name."""
    folder = resources.files("loradar.data") / "catalog"
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def read_catalog(file: Traversable) -> Catalog:
    """Read a catalog file.

    Raises:
        InvalidRequest: If a line of it is none of a catalog.
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
        header = CatalogHeader.from_dict(json.loads(next(numbered)[1]))
        unpacker = Unpacker(header.library, header.library_version)
        for number, line in numbered:  # noqa: B007 - the message names it
            found = unpacker.read(json.loads(line))
            entries += [CatalogEntry(**found)] if found else []
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        message = f"{file} line {number} is no catalog line ({type(error).__name__}: {error})."
        raise InvalidRequest(message, file=file, line=number) from error
    return Catalog(header, tuple(entries))


def catalog_lines(header: CatalogHeader, entries: Iterable[CatalogEntry]) -> Iterator[str]:
    """Yield the lines of a catalog file, without their line ends; the same entries make the same lines.

    Args:
        header: What the entries were made from.
        entries: Sorted by name.
    """
    yield to_text(header.to_dict())
    packer = Packer()
    for entry in entries:
        if entry.unscanned is not None:
            yield to_text({"name": entry.architecture.name, "unscanned": entry.unscanned})
        else:
            yield from packer.lines(entry)
