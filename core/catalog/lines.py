"""Pack catalog entries into JSON lines and unpack them.

Values that follow from others are not written: the layers a proposal matches and its reasons follow from the slots,
unless they differ.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..domain.architectures import Architecture, ModelPart, PromptFacts
from ..domain.choosing.members import spread_evenly
from ..domain.choosing.slot_hits import Matched, find_targets
from ..domain.layers import Coverage, Slot, find_towers
from ..domain.mappings import Verification
from ..domain.scans import Proposal
from ..domain.targets import Formula, TargetSpec
from ..domain.vocabulary import Library, Tower, describe_slot
from ..schema import to_json

if TYPE_CHECKING:
    from .entries import CatalogEntry

Counts = dict[str, dict[str, int]]

_STRUCTURE_ID, _REASON_ID = 12, 8
_SLOT = ("pattern", "role", "kind", "tower", "live", "layout", "bypassed", "kernel", "proof", "blocks")
"""The fields of a slot in written order; unset ones at the end are omitted."""


def to_text(value: Any) -> str:
    """Return the canonical JSON text of a value, in UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Packer:
    """Write entries, each shared part once."""

    def __init__(self) -> None:
        self._written: set[str] = set()

    def lines(self, entry: "CatalogEntry") -> Iterator[str]:
        """Yield the line of an entry, preceded by the shared parts not written before."""
        shared = _pack_structure(entry)
        structure = _digest(to_text(shared), _STRUCTURE_ID)
        if self._is_new(structure):
            yield to_text({"structure": structure, **shared})
        own = {to_slot_reason(slot) for slot in entry.slots}
        reasons = [r for r in dict.fromkeys(r for p in entry.proposals for r in p.reasons) if r not in own]
        for reason in reasons:
            if self._is_new(_digest(reason, _REASON_ID)):
                yield to_text({"reason": _digest(reason, _REASON_ID), "text": reason})
        yield to_text(_pack_entry(entry, reasons) | {"structure": structure})

    def _is_new(self, identity: str) -> bool:
        is_new = identity not in self._written
        self._written.add(identity)
        return is_new


def to_slot_reason(slot: Slot) -> str:
    """Return the reason in a proposal that matches a whole slot."""
    return describe_slot(slot.pattern, slot.role, slot.count)


def _digest(text: str, length: int) -> str:
    return sha256(text.encode()).hexdigest()[:length]


def _pack_structure(entry: "CatalogEntry") -> dict[str, Any]:
    """Return the shared structure of an entry; proposals refer to their spec by its index."""
    specs = [_drop_unset(to_json(p.spec)) for p in entry.proposals]
    unique = [spec for position, spec in enumerate(specs) if spec not in specs[:position]]
    return {
        "fingerprint": entry.architecture.fingerprint,
        **({"nameless": entry.architecture.structure} if entry.architecture.structure else {}),
        "towers": entry.towers,
        "slots": [_without_end([getattr(slot, name) for name in _SLOT]) for slot in entry.slots],
        "blocks": [coverage.block for coverage in entry.proposals[0].coverage] if entry.proposals else [],
        "specs": unique,
        "for": [[p.peft_type, p.preset, unique.index(spec)] for p, spec in zip(entry.proposals, specs, strict=True)],
    }


def _without_end(values: list[Any]) -> list[Any]:
    """Return values without the unset ones at the end."""
    while values and values[-1] is None:
        values.pop()
    return values


def _drop_unset(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a dict without unset values and without these names."""
    return {name: value for name, value in values.items() if value is not None and name not in names}


def _pack_entry(entry: "CatalogEntry", reasons: Sequence[str]) -> dict[str, Any]:
    """Return the line of an entry; proposals refer to reasons by index, first those of slots, then ``reasons``."""
    indices = {reason: len(entry.slots) + index for index, reason in enumerate(reasons)}
    indices |= {to_slot_reason(slot): index for index, slot in enumerate(entry.slots)}
    blocks = entry.proposals[0].coverage if entry.proposals else ()
    peft: dict[str, tuple[Verification, list[str]]] = {}  # PEFT types with the same outcome share an item
    for peft_type, check in entry.peft:
        peft.setdefault(to_text(to_json(check)), (check, []))[1].append(peft_type)
    optional = {
        "untraced": list(entry.untraced),
        "proof": entry.proof,
        "digest": entry.digest,
        "parts": [_without_end([*to_json(part).values()]) for part in entry.parts],
        "peft": [
            {"for": types, **_drop_unset(to_json(check), "library_version", "counts"), "hits": check.counts}
            for check, types in peft.values()
        ],
    }
    return {
        "name": entry.architecture.name,
        "class": entry.architecture.class_name,
        "method": entry.method,
        "counts": [slot.count for slot in entry.slots],
        **({"sizes": sizes} if any(sizes := [slot.per_rank for slot in entry.slots]) else {}),
        **_pack_members(entry.slots),
        "prompt": _without_end([*to_json(entry.prompt_facts).values()]),
        "of": [coverage.of for coverage in blocks],
        "reasons": [_digest(reason, _REASON_ID) for reason in reasons],
        "proposals": [
            _pack_proposal(proposal, check, entry.slots, indices)
            for proposal, check in zip(entry.proposals, entry.checks, strict=True)
        ],
        **{name: value for name, value in optional.items() if value},
    }


def _pack_members(slots: Sequence[Slot]) -> dict[str, Any]:
    """Return the members of each slot, 1 where they follow from count and size; 1 if they do in every slot."""
    members = [1 if slot.members == spread_evenly(slot) else slot.members for slot in slots]
    if None in members:
        return {}
    return {"members": 1 if all(text == 1 for text in members) else members}


def _unpack_members(slots: Sequence[Slot], members: Any) -> tuple[Slot, ...]:
    """Return slots with the members of ``_pack_members``; unset if there are none."""
    if members is None:
        return tuple(slots)
    texts = [1] * len(slots) if members == 1 else members
    return tuple(
        replace(slot, members=spread_evenly(slot) if text == 1 else text)
        for slot, text in zip(slots, texts, strict=True)
    )


def _pack_proposal(
    proposal: Proposal, check: Verification, slots: Sequence[Slot], indices: dict[str, int]
) -> list[Any]:
    """Return [matched, per rank, fixed, reached, reasons, blocks, and the values that do not follow from others]."""
    more = _drop_unset(
        {
            "hits": None if check.counts == count_matches(proposal.spec, slots) else check.counts,
            "reached": None if check.reached == proposal.reached else check.reached,
            "status": None if check.status == "unproven" else check.status,
            "findings": list(check.findings) or None,
        }
    )
    is_full = all(coverage.hit == coverage.of for coverage in proposal.coverage)
    blocks = 1 if is_full else [coverage.hit for coverage in proposal.coverage]
    sizes = [proposal.matched, proposal.per_rank, proposal.fixed, proposal.reached]
    return [*sizes, [indices[reason] for reason in proposal.reasons], blocks, *([more] if more else [])]


def count_matches(spec: TargetSpec, slots: Sequence[Slot]) -> Counts:
    """Return the layers each target matches, by kind, if it matches each slot whole or not at all."""
    return _sum_matches(spec, find_targets(spec, slots), slots)


def _sum_matches(spec: TargetSpec, matched: Matched, slots: Sequence[Slot]) -> Counts:
    counts: Counts = {target: {} for target in spec.list_targets()}
    for target, slot in zip(matched, slots, strict=True):
        if target is not None:
            counts[target][slot.kind] = counts[target].get(slot.kind, 0) + slot.count
    return counts


@dataclass(frozen=True, slots=True)
class _Structure:
    """The values of a structure line."""

    fingerprint: str | None
    nameless: str | None
    towers: dict[Tower, tuple[str, ...]]
    slots: tuple[dict[str, Any], ...]
    blocks: tuple[str, ...]
    specs: tuple[tuple[Any, Any, TargetSpec], ...]
    """(PEFT type, preset, spec) of each proposal."""
    matched: dict[TargetSpec, Matched] = field(default_factory=dict)

    def count_matches(self, spec: TargetSpec, slots: Sequence[Slot]) -> Counts:
        """Count as ``count_matches``; each spec is matched with the slots once."""
        if spec not in self.matched:
            self.matched[spec] = find_targets(spec, slots)
        return _sum_matches(spec, self.matched[spec], slots)


class Unpacker:
    """Read the lines of a catalog in their order."""

    def __init__(self, library: Library, version: str) -> None:
        self._library = library
        self._version = version
        self._structures: dict[str, _Structure] = {}
        self._reasons: dict[str, str] = {}

    def read(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fields of the entry on a line; ``None`` for a line with a shared part.

        Raises:
            KeyError, IndexError, TypeError, ValueError: If the line is not one of a catalog.
        """
        if "name" in data:
            return self._unpack_entry(data)
        if "reason" in data:
            self._reasons[data["reason"]] = data["text"]
            return None
        specs = [TargetSpec.from_dict(spec) for spec in data["specs"]]
        self._structures[data["structure"]] = _Structure(
            data["fingerprint"],
            data.get("nameless"),
            {tower: tuple(prefixes) for tower, prefixes in data["towers"].items()},
            tuple(dict(zip(_SLOT, slot, strict=False)) for slot in data["slots"]),
            tuple(data["blocks"]),
            tuple((peft_type, preset, specs[index]) for peft_type, preset, index in data["for"]),
        )
        return None

    def _unpack_entry(self, data: dict[str, Any]) -> dict[str, Any]:
        if "unscanned" in data:
            return {"architecture": Architecture(self._library, data["name"]), "unscanned": data["unscanned"]}
        shared = self._structures[data["structure"]]
        sizes = data.get("sizes") or [None] * len(shared.slots)
        numbers = zip(shared.slots, data["counts"], sizes, strict=True)
        plain = [Slot(**slot, count=count, per_rank=size) for slot, count, size in numbers]
        slots = _unpack_members(plain, data.get("members"))
        reasons = [*map(to_slot_reason, slots), *(self._reasons[reason] for reason in data["reasons"])]
        own = [*zip(shared.specs, data["proposals"], strict=True)]
        towers = find_towers(shared.blocks, ((slot.pattern, slot.tower, slot.count) for slot in slots))
        kinds = [Coverage(name, of, of, towers[name]) for name, of in zip(shared.blocks, data["of"], strict=True)]
        return {
            "architecture": Architecture(
                self._library, data["name"], data["class"], self._version, shared.fingerprint, shared.nameless
            ),
            "method": data["method"],
            "untraced": tuple(data.get("untraced", ())),
            "towers": shared.towers,
            "slots": slots,
            "proposals": tuple(_unpack_proposal(spec, values, reasons, kinds) for spec, values in own),
            "checks": tuple(self._unpack_check(spec, values, shared, slots) for (_, _, spec), values in own),
            "peft": tuple(
                (
                    peft_type,
                    Verification(
                        item["status"], self._version, item["hits"], item["reached"], tuple(item.get("findings", ()))
                    ),
                )
                for item in data.get("peft", ())
                for peft_type in item["for"]
            ),
            "proof": data.get("proof"),
            "digest": data.get("digest"),
            "prompt_facts": PromptFacts(*data["prompt"]),
            "parts": tuple(ModelPart(*part) for part in data.get("parts", ())),
        }

    def _unpack_check(
        self, spec: TargetSpec, values: list[Any], shared: _Structure, slots: Sequence[Slot]
    ) -> Verification:
        more = values[6] if len(values) > 6 else {}  # noqa: PLR2004 - the last of seven
        counts = more["hits"] if "hits" in more else shared.count_matches(spec, slots)
        reached, findings = more.get("reached", values[3]), tuple(more.get("findings", ()))
        return Verification(more.get("status", "unproven"), self._version, counts, reached, findings)


def _unpack_proposal(
    spec: tuple[Any, Any, TargetSpec], values: list[Any], reasons: Sequence[str], kinds: Sequence[Coverage]
) -> Proposal:
    matched, per_rank, fixed, reached, indices, hit = values[:6]
    peft_type, preset, targets = spec
    return Proposal(
        peft_type=peft_type,
        preset=preset,
        **targets.values,
        matched=matched,
        formula=None if per_rank is None else Formula(per_rank, fixed),
        coverage=tuple(
            kind if hit == 1 else replace(kind, hit=n)
            for kind, n in zip(kinds, [0] * len(kinds) if hit == 1 else hit, strict=True)
        ),
        reached=reached,
        reasons=tuple(reasons[index] for index in indices),
    )
