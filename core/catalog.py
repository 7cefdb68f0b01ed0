"""The catalog: what the scans of a whole library found, kept as compact JSON lines. No torch and no SQL in here.

A file starts with a header line. Each architecture is a line, sorted by name; what several have in common (slots
without their counts, towers, target specs: a *structure*) is a line of its own, before the first of them.
"""

import json
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Json
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Self

from .errors import InvalidRequest
from .mappings import Verification
from .records import Architecture, Proposal, Slot
from .targets import TargetSpec
from .vocabulary import Library, Tower

FORMAT = 1
_ID_LENGTH = 12


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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, whole: nothing is shared with other architectures."""
        if self.unscanned is not None:
            return {"architecture": self.architecture.to_dict(), "unscanned": self.unscanned}
        return {
            "architecture": self.architecture.to_dict(),
            "method": self.method,
            "untraced": list(self.untraced),
            "proof": self.proof,
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
    number, structures, entries = 1, dict[str, Any](), list[CatalogEntry]()
    try:
        header = CatalogHeader.from_dict(json.loads(next(numbered)[1]))
        for number, line in numbered:  # noqa: B007 - the message names it
            data = json.loads(line)
            if "structure" in data and "name" not in data:
                structures[data["structure"]] = _Structure.from_dict(data)
            else:
                entries.append(_unpacked(header, data, structures))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        message = f"{file} line {number} is no catalog line ({type(error).__name__}: {error})."
        raise InvalidRequest(message, file=file, line=number) from error
    return Catalog(header, tuple(entries))


def catalog_lines(header: CatalogHeader, entries: Iterable[CatalogEntry]) -> Iterator[str]:
    """Yield the lines of a catalog file, without their line ends; the same entries make the same lines.

    Args:
        header: What the entries were made from.
        entries: Sorted by name.
    """
    yield _text(header.to_dict())
    known: set[str] = set()
    for entry in entries:
        if entry.unscanned is not None:
            yield _text({"name": entry.architecture.name, "unscanned": entry.unscanned})
            continue
        shared = _text(_shared(entry))
        identity = sha256(shared.encode()).hexdigest()[:_ID_LENGTH]
        if identity not in known:
            known.add(identity)
            yield _text({"structure": identity, **json.loads(shared)})
        yield _text(_own(entry) | {"structure": identity})


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _shared(entry: CatalogEntry) -> dict[str, Any]:
    """Return what goes into the structure of an entry."""
    return {
        "fingerprint": entry.architecture.fingerprint,
        "towers": entry.towers,
        "slots": [_without(slot.to_dict(), "count") for slot in entry.slots],
        "specs": [{"for": [p.peft_type, p.preset], **_without(p.spec.to_dict())} for p in entry.proposals],
    }


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a dict without these names and without what is not set."""
    return {name: value for name, value in values.items() if value is not None and name not in names}


def _own(entry: CatalogEntry) -> dict[str, Any]:
    """Return what is an entry's own; a reason that several proposals give stands there once."""
    reasons = list(dict.fromkeys(reason for proposal in entry.proposals for reason in proposal.reasons))
    return {
        "name": entry.architecture.name,
        "class": entry.architecture.class_name,
        "method": entry.method,
        **({"untraced": list(entry.untraced)} if entry.untraced else {}),
        **({"proof": entry.proof} if entry.proof else {}),
        "counts": [slot.count for slot in entry.slots],
        "reasons": reasons,
        "proposals": [
            {
                "matched": proposal.matched,
                "per_rank": proposal.per_rank,
                **({"fixed": proposal.fixed} if proposal.fixed else {}),
                "reasons": [reasons.index(reason) for reason in proposal.reasons],
                "hits": check.counts,
                "reached": check.reached,
                **({} if check.status == "unproven" else {"status": check.status}),
                **({"findings": list(check.findings)} if check.findings else {}),
            }
            for proposal, check in zip(entry.proposals, entry.checks, strict=True)
        ],
        **({"peft": _grouped(entry.peft)} if entry.peft else {}),
    }


def _grouped(checks: Iterable[tuple[str, Verification]]) -> list[dict[str, Any]]:
    """Return the checks of PEFT's entries, those with the same outcome together."""
    groups: dict[str, tuple[Verification, list[str]]] = {}
    for peft_type, check in checks:
        groups.setdefault(_text(check.to_dict()), (check, []))[1].append(peft_type)
    return [
        {"for": types, **_without(check.to_dict(), "library_version", "counts"), "hits": check.counts}
        for check, types in groups.values()
    ]


@dataclass(frozen=True, slots=True)
class _Structure:
    """A structure line, read."""

    fingerprint: str | None
    towers: dict[str, tuple[str, ...]]
    slots: tuple[Slot, ...]
    specs: tuple[tuple[Any, Any, TargetSpec], ...]

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        return cls(
            data["fingerprint"],
            {tower: tuple(prefixes) for tower, prefixes in data["towers"].items()},
            tuple(Slot(**slot, count=0) for slot in data["slots"]),
            tuple((*spec["for"], TargetSpec.from_dict(spec)) for spec in data["specs"]),
        )


def _unpacked(header: CatalogHeader, data: dict[str, Any], structures: dict[str, _Structure]) -> CatalogEntry:
    if "unscanned" in data:
        return CatalogEntry(Architecture(header.library, data["name"]), unscanned=data["unscanned"])
    shared, version = structures[data["structure"]], header.library_version
    return CatalogEntry(
        architecture=Architecture(header.library, data["name"], data["class"], version, shared.fingerprint),
        method=data["method"],
        untraced=tuple(data.get("untraced", ())),
        towers=shared.towers,
        slots=tuple(replace(slot, count=n) for slot, n in zip(shared.slots, data["counts"], strict=True)),
        proposals=tuple(
            Proposal(
                *spec,
                own["matched"],
                own["per_rank"],
                own.get("fixed", 0),
                tuple(data["reasons"][n] for n in own["reasons"]),
            )
            for spec, own in zip(shared.specs, data["proposals"], strict=True)
        ),
        checks=tuple(_to_check(own, version) for own in data["proposals"]),
        peft=tuple((name, _to_check(own, version)) for own in data.get("peft", ()) for name in own["for"]),
        proof=data.get("proof"),
    )


def _to_check(data: dict[str, Any], library_version: str) -> Verification:
    findings = tuple(data.get("findings", ()))
    return Verification(data.get("status", "unproven"), library_version, data["hits"], data["reached"], findings)


def _to_proposal(data: Json[str, Any]) -> Proposal:
    size, reasons = data["formula"], tuple(data["reasons"])
    spec = TargetSpec.from_dict(data)
    own = (data["matched"], size["per_rank"], size["fixed"])
    return Proposal(data["peft_type"], data["preset"], spec, *own, reasons)
