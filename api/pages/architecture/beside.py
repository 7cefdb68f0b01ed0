"""Gather the facts beside the targets of an architecture: pitfalls, PEFT's entry, history, similar ones."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from ....domain.changes import Revision
from ....domain.layers import Slot
from ....domain.mappings import ArchitectureDetail, Mapping, Neighbour
from ....domain.submissions import Difference
from ....domain.vocabulary import count_layers, list_some
from ....errors import LoradarError
from ....registry import Registry

MOST_PATTERNS = 4
"""Path patterns that a pitfall names."""

SPLITS = {
    "thirds": "query, key and value are thirds of one projection",
    "halves": "two projections are halves of one",
    "unequal": "several projections of different widths are one",
    "interleaved": "query, key and value alternate head by head in one projection",
    "out_in": "all experts are one parameter, output before input",
    "in_out": "all experts are one parameter, input before output",
}


@dataclass(frozen=True, slots=True)
class Pitfall:
    """Layers with which an adapter goes wrong, or does more than its name suggests.

    Attributes:
        kind: ``bypassed``, ``kernel``, ``dead``, ``unproven``, ``fused`` or ``finding``.
        title: The problem, in words.
        why: The reason; may be empty.
        where: Path patterns.
    """

    kind: str
    title: str
    why: str
    where: str = ""


RULES: tuple[tuple[str, str, Callable[[Slot], bool], str], ...] = (
    (
        "bypassed",
        "bypassed",
        lambda slot: bool(slot.bypassed),
        "bypassed: their weights are read at",
    ),
    (
        "kernel",
        "kernel",
        lambda slot: bool(slot.kernel),
        "bypassed by a fused kernel, called at",
    ),
    (
        "dead",
        "proof",
        lambda slot: slot.live is False and not slot.bypassed,
        "without a gradient for an adapter",
    ),
    ("unproven", "proof", lambda slot: slot.live is None and bool(slot.proof and slot.per_rank), "not proved"),
    ("fused", "layout", lambda slot: bool(slot.layout), "fused: one adapter for all parts"),
)
"""Kind of pitfall, field of the slot that gives the reason, whether a slot has it, and the title; the worst first."""


def list_pitfalls(detail: ArchitectureDetail, mapping: Mapping | None = None) -> Iterator[Pitfall]:
    """Yield the pitfalls of an architecture, the worst first."""
    for finding in mapping.verification.findings if mapping and mapping.verification else ():
        yield Pitfall("finding", "The check of these targets noted", finding)
    slots = [slot for slot in detail.slots if slot.kind != "norm"]
    for kind, name, has, title in RULES:
        for why, found in _group(filter(has, slots), name):
            number = sum(slot.count for slot in found)
            layers = f"{count_layers(number)} {'is' if number == 1 else 'are'}"
            where = list_some((slot.pattern for slot in found), MOST_PATTERNS)
            yield Pitfall(kind, f"{layers} {title}", SPLITS.get(why, why), where)


def _group(slots: Iterable[Slot], name: str) -> Iterator[tuple[str, list[Slot]]]:
    """Yield slots by the value of one field."""
    ordered = sorted(slots, key=lambda slot: str(getattr(slot, name)))
    for value, group in groupby(ordered, key=lambda slot: str(getattr(slot, name))):
        yield value, [*group]


@dataclass(frozen=True, slots=True)
class PeftEntry:
    """PEFT's own entry of LoRA beside the scanner's mapping of the same preset.

    Attributes:
        mapping: The entry.
        ours: The scanner's mapping; ``None`` if it was never scanned.
        difference: The layers that only one of them matches; ``None`` if that is unknown.
    """

    mapping: Mapping
    ours: Mapping | None
    difference: Difference | None


def find_peft_entry(registry: Registry, detail: ArchitectureDetail) -> PeftEntry | None:
    """Return PEFT's entry, or ``None`` if it has none."""
    own = [one for one in detail.revisions if (one.peft_type, one.preset) == ("LORA", "default")]
    entry = next((one for one in reversed(own) if one.source.kind == "peft"), None)
    ours = next((one for one in reversed(own) if one.source.kind == "scanner"), None)
    if entry is None:
        return None
    difference = None
    if ours is not None:
        try:
            difference = registry.compare(ours.id, entry.id)
        except LoradarError:  # one of them is of a version that the slots on record are not of
            difference = None
    return PeftEntry(entry, ours, difference)


def list_similar(registry: Registry, detail: ArchitectureDetail, limit: int) -> tuple[Neighbour, ...]:
    """Return similar architectures; none if it was never scanned."""
    own = detail.architecture
    return registry.list_similar(own.library, own.name, limit) if detail.slots else ()


def list_latest(registry: Registry, detail: ArchitectureDetail, limit: int) -> tuple[list[Revision], int]:
    """Return the latest revisions, newest first, and the number of all."""
    own = detail.architecture
    revisions = registry.list_history(own.library, own.name)
    newest = sorted(revisions, key=lambda one: (one.created_at, one.mapping.peft_type == "LORA"), reverse=True)
    return newest[:limit], len(revisions)
