"""How the catalog's entries become lines and lines entries again: nothing that can be worked out is written.

What a proposal hits and why is worked out from the slots where that gives the same, else written.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..domain.architectures import Architecture, PromptFacts
from ..domain.layers import Coverage, Slot
from ..domain.mappings import Verification
from ..domain.scans import Proposal
from ..domain.schema import to_json
from ..domain.targets import Formula, TargetMatcher, TargetSpec
from ..domain.vocabulary import Kind, Library, Tower
from ..wording import tell_slot

if TYPE_CHECKING:
    from .entries import CatalogEntry

Counts = dict[str, dict[str, int]]
Matched = tuple[str | None, ...]
"""For each slot the target that hits it, if one does."""

_STRUCTURE_ID, _REASON_ID = 12, 8
_SLOT = ("pattern", "role", "kind", "tower", "live", "layout", "bypassed", "kernel", "proof")
"""A slot's fields in the order in which they are written; those at the end that are not set are left out."""


def to_text(value: Any) -> str:
    """Return the one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Packer:
    """Writes entries; what was written once is referred to."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def lines(self, entry: "CatalogEntry") -> Iterator[str]:
        """Yield the line of an entry, after those it is the first to refer to."""
        shared = to_text(_shared(entry))
        structure = _digest(shared, _STRUCTURE_ID)
        if self._is_new(structure):
            yield to_text({"structure": structure, **json.loads(shared)})
        own = {to_slot_reason(slot) for slot in entry.slots}
        reasons = [r for r in dict.fromkeys(r for p in entry.proposals for r in p.reasons) if r not in own]
        for reason in reasons:
            if self._is_new(_digest(reason, _REASON_ID)):
                yield to_text({"reason": _digest(reason, _REASON_ID), "text": reason})
        yield to_text(_own(entry, reasons) | {"structure": structure})

    def _is_new(self, identity: str) -> bool:
        is_new = identity not in self._known
        self._known.add(identity)
        return is_new


def to_slot_reason(slot: Slot) -> str:
    """Return the reason that a proposal gives for hitting a slot whole."""
    return tell_slot(slot.pattern, slot.role, slot.count)


def _digest(text: str, length: int) -> str:
    return sha256(text.encode()).hexdigest()[:length]


def _shared(entry: "CatalogEntry") -> dict[str, Any]:
    """Return what goes into the structure of an entry; of proposals with the same spec, each names its place."""
    specs = [_set(to_json(p.spec)) for p in entry.proposals]
    unique = [spec for place, spec in enumerate(specs) if spec not in specs[:place]]
    return {
        "fingerprint": entry.architecture.fingerprint,
        **({"nameless": entry.architecture.structure} if entry.architecture.structure else {}),
        "towers": entry.towers,
        "slots": [_slot_values(slot) for slot in entry.slots],
        "blocks": [coverage.block for coverage in entry.proposals[0].coverage] if entry.proposals else [],
        "specs": unique,
        "for": [[p.peft_type, p.preset, unique.index(spec)] for p, spec in zip(entry.proposals, specs, strict=True)],
    }


def _slot_values(slot: Slot) -> list[Any]:
    return _without_end([getattr(slot, name) for name in _SLOT])


def _without_end(values: list[Any]) -> list[Any]:
    """Return values without those at the end that are not set."""
    while values and values[-1] is None:
        values.pop()
    return values


def _set(values: dict[str, Any], *without: str) -> dict[str, Any]:
    """Return a dict without these names and without what is not set."""
    return {name: value for name, value in values.items() if value is not None and name not in without}


def _own(entry: "CatalogEntry", reasons: Sequence[str]) -> dict[str, Any]:
    """Return what is an entry's own; its reasons are numbered: first its slots, then those it names."""
    places = {reason: len(entry.slots) + place for place, reason in enumerate(reasons)}
    places |= {to_slot_reason(slot): place for place, slot in enumerate(entry.slots)}
    blocks = entry.proposals[0].coverage if entry.proposals else ()
    optional = {"untraced": list(entry.untraced), "proof": entry.proof, "peft": _grouped(entry.peft)}
    return {
        "name": entry.architecture.name,
        "class": entry.architecture.class_name,
        "method": entry.method,
        "counts": [slot.count for slot in entry.slots],
        "prompt": _without_end([*to_json(entry.prompt_facts).values()]),
        "of": [coverage.of for coverage in blocks],
        "reasons": [_digest(reason, _REASON_ID) for reason in reasons],
        "proposals": [
            _packed(proposal, check, entry.slots, places)
            for proposal, check in zip(entry.proposals, entry.checks, strict=True)
        ],
        **{name: value for name, value in optional.items() if value},
    }


def _packed(proposal: Proposal, check: Verification, slots: Sequence[Slot], places: dict[str, int]) -> list[Any]:
    """Return [matched, per rank, fixed, reached, reasons, blocks hit, and what else cannot be worked out]."""
    more = _set(
        {
            "hits": None if check.counts == count_hits(proposal.spec, slots) else check.counts,
            "reached": None if check.reached == proposal.reached else check.reached,
            "status": None if check.status == "unproven" else check.status,
            "findings": list(check.findings) or None,
        }
    )
    is_full = all(coverage.hit == coverage.of for coverage in proposal.coverage)
    hit = 1 if is_full else [coverage.hit for coverage in proposal.coverage]
    sizes = [proposal.matched, proposal.per_rank, proposal.fixed, proposal.reached]
    return [*sizes, [places[reason] for reason in proposal.reasons], hit, *([more] if more else [])]


def count_hits(spec: TargetSpec, slots: Sequence[Slot]) -> Counts:
    """Return the layers each target hits, by kind, if it hits each slot whole or not at all."""
    return _sum_hits(spec, _match(spec, slots), slots)


def _match(spec: TargetSpec, slots: Iterable[Slot]) -> Matched:
    """Return which target hits each slot."""
    modules, parameters = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.target_parameters or ())
    excluded = TargetMatcher(spec.exclude_modules or ())

    def match(path: str, kind: Kind) -> str | None:
        if kind == "expert_parameter":
            return parameters.find(path)
        target = modules.find(path)
        return None if target is None or excluded.find(path) is not None else target

    return tuple(match(slot.pattern.replace("*", "0"), slot.kind) for slot in slots)


def _sum_hits(spec: TargetSpec, matched: Matched, slots: Sequence[Slot]) -> Counts:
    named = spec.target_modules or ()
    counts: Counts = {t: {} for t in (*([named] if isinstance(named, str) else named), *(spec.target_parameters or ()))}
    for target, slot in zip(matched, slots, strict=True):
        if target is not None:
            counts[target][slot.kind] = counts[target].get(slot.kind, 0) + slot.count
    return counts


def _grouped(checks: Iterable[tuple[str, Verification]]) -> list[dict[str, Any]]:
    """Return the checks of PEFT's entries, those with the same outcome together."""
    groups: dict[str, tuple[Verification, list[str]]] = {}
    for peft_type, check in checks:
        groups.setdefault(to_text(to_json(check)), (check, []))[1].append(peft_type)
    return [
        {"for": types, **_set(to_json(check), "library_version", "counts"), "hits": check.counts}
        for check, types in groups.values()
    ]


@dataclass(frozen=True, slots=True)
class _Structure:
    """A structure line, read."""

    fingerprint: str | None
    nameless: str | None
    towers: dict[Tower, tuple[str, ...]]
    slots: tuple[dict[str, Any], ...]
    blocks: tuple[str, ...]
    specs: tuple[tuple[Any, Any, TargetSpec], ...]
    matched: dict[TargetSpec, Matched] = field(default_factory=dict)

    def count_hits(self, spec: TargetSpec, slots: Sequence[Slot]) -> Counts:
        """Count as ``count_hits`` what a spec hits of an entry's slots; which slots it hits is worked out once."""
        if spec not in self.matched:
            self.matched[spec] = _match(spec, slots)
        return _sum_hits(spec, self.matched[spec], slots)


def _read_structure(data: dict[str, Any]) -> _Structure:
    specs = [TargetSpec.from_dict(spec) for spec in data["specs"]]
    return _Structure(
        data["fingerprint"],
        data.get("nameless"),
        {tower: tuple(prefixes) for tower, prefixes in data["towers"].items()},
        tuple(dict(zip(_SLOT, slot, strict=False)) for slot in data["slots"]),
        tuple(data["blocks"]),
        tuple((peft_type, preset, specs[place]) for peft_type, preset, place in data["for"]),
    )


class Unpacker:
    """Reads lines in their order."""

    def __init__(self, library: Library, version: str) -> None:
        self._library = library
        self._version = version
        self._structures: dict[str, _Structure] = {}
        self._reasons: dict[str, str] = {}

    def read(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fields of the entry a line holds; ``None`` if it holds what entries refer to.

        Raises:
            KeyError, IndexError, TypeError, ValueError: If it is no line of a catalog.
        """
        if "name" in data:
            return self._entry(data)
        if "reason" in data:
            self._reasons[data["reason"]] = data["text"]
        else:
            self._structures[data["structure"]] = _read_structure(data)
        return None

    def _entry(self, data: dict[str, Any]) -> dict[str, Any]:
        if "unscanned" in data:
            return {"architecture": Architecture(self._library, data["name"]), "unscanned": data["unscanned"]}
        shared = self._structures[data["structure"]]
        named = (self._library, data["name"], data["class"], self._version, shared.fingerprint, shared.nameless)
        slots = tuple(Slot(**slot, count=n) for slot, n in zip(shared.slots, data["counts"], strict=True))
        reasons = [*map(to_slot_reason, slots), *(self._reasons[reason] for reason in data["reasons"])]
        own = [*zip(shared.specs, data["proposals"], strict=True)]
        return {
            "architecture": Architecture(*named),
            "method": data["method"],
            "untraced": tuple(data.get("untraced", ())),
            "towers": shared.towers,
            "slots": slots,
            "proposals": tuple(_to_proposal(spec, values, reasons, shared, data["of"]) for spec, values in own),
            "checks": tuple(self._to_check(spec, values, shared, slots) for (_, _, spec), values in own),
            "peft": tuple((name, self._to_peft_check(item)) for item in data.get("peft", ()) for name in item["for"]),
            "proof": data.get("proof"),
            "prompt_facts": PromptFacts(*data["prompt"]),
        }

    def _to_check(self, spec: TargetSpec, values: list[Any], shared: _Structure, slots: Sequence[Slot]) -> Verification:
        more = values[6] if len(values) > 6 else {}  # noqa: PLR2004 - the last of seven
        counts = more["hits"] if "hits" in more else shared.count_hits(spec, slots)
        reached, findings = more.get("reached", values[3]), tuple(more.get("findings", ()))
        return Verification(more.get("status", "unproven"), self._version, counts, reached, findings)

    def _to_peft_check(self, data: dict[str, Any]) -> Verification:
        findings = tuple(data.get("findings", ()))
        return Verification(data["status"], self._version, data["hits"], data["reached"], findings)


def _to_proposal(
    spec: tuple[Any, Any, TargetSpec], values: list[Any], reasons: Sequence[str], shared: _Structure, of: list[int]
) -> Proposal:
    matched, per_rank, fixed, reached, why, hit = values[:6]
    blocks = zip(shared.blocks, of if hit == 1 else hit, of, strict=True)
    coverage = tuple(Coverage(block, n, whole) for block, n, whole in blocks)
    peft_type, preset, targets = spec
    return Proposal(
        peft_type=peft_type,
        preset=preset,
        **targets.values,
        matched=matched,
        formula=None if per_rank is None else Formula(per_rank, fixed),
        coverage=coverage,
        reached=reached,
        reasons=tuple(reasons[place] for place in why),
    )
