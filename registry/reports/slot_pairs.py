"""Put two mappings side by side, of one architecture or of two, with the slots that do the same in one row."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from ...domain.choosing.slot_hits import count_hits
from ...domain.layers import Slot
from ...domain.mappings import Mapping
from ...domain.methods import TARGETED
from ...domain.reports.side_by_side import FieldPair, PairDifference, SideBySide, SlotPair
from ...domain.vocabulary import RECOMMENDED, Role
from ..mappings.similar import list_differences, tail_of

if TYPE_CHECKING:
    from ..registry import Registry

FIELDS = ("target_modules", "target_parameters", "exclude_modules", "modules_to_save", "feedforward_modules")
UNLIKE: tuple[Role, ...] = ("norm", "other")
"""Roles whose layers are alike only where their names are."""
ROLES: tuple[Role, ...] = get_args(Role)

_ID = re.compile(r"sha256:[0-9a-f]{8,64}|(?=[0-9a-f]*[0-9])[0-9a-f]{8,64}")
"""The id of a revision, or its first digits; a word of letters alone is a name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mapping to compare: an architecture in any spelling with a preset, or the id of a revision.

    Attributes:
        reference: The architecture or the id.
        preset: The preset; if not given, the recommended one for LoRA, else the default. An id has its own.
        peft_type: The method; an id has its own.
    """

    reference: str
    preset: str | None = None
    peft_type: str = TARGETED

    def find(self, registry: "Registry") -> Mapping:
        """Return the mapping.

        Raises:
            LoradarError: As ``Registry.lookup`` and ``Registry.get_revision``.
        """
        text, method = self.reference.strip(), self.peft_type.upper()
        if _ID.fullmatch(text):
            return registry.get_revision(text).mapping
        return registry.lookup(text, method, self.preset or (RECOMMENDED if method == TARGETED else None))


def put_side_by_side(registry: "Registry", left: Wanted, right: Wanted) -> SideBySide:
    """Return two mappings with the slots of their architectures.

    Raises:
        LoradarError: If one of them is not found.
    """
    mappings = left.find(registry), right.find(registry)
    slots = [registry.list_slots(each.library, each.name) for each in mappings]
    is_one = mappings[0].architecture == mappings[1].architecture
    words = () if is_one or not all(slots) else list_differences(slots[0], slots[1], mappings[0].name)
    fields = (_pair_field(name, *mappings) for name in FIELDS)
    pairs = tuple(_pair_slots(mappings, slots)) if all(slots) else ()
    return SideBySide(*mappings, tuple(filter(None, fields)), words, pairs)


def _pair_field(name: str, left: Mapping, right: Mapping) -> FieldPair | None:
    ours, theirs = (_list(getattr(each, name)) for each in (left, right))
    if not ours and not theirs:
        return None
    return FieldPair(
        name,
        tuple(value for value in ours if value in theirs),
        tuple(value for value in ours if value not in theirs),
        tuple(value for value in theirs if value not in ours),
    )


def _list(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


Side = tuple[Slot, int]
"""A slot, and the number of its layers that a mapping matches."""


def _pair_slots(mappings: Sequence[Mapping], slots: Sequence[Sequence[Slot]]) -> Iterator[SlotPair]:
    """Yield the slots of both, paired by role: those with one name first, then in the order of the model."""
    sides: list[dict[tuple[int, str], list[Side]]] = [defaultdict(list), defaultdict(list)]
    for by_role, mapping, own in zip(sides, mappings, slots, strict=True):
        for slot, count in zip(own, count_hits(mapping.spec, own), strict=True):
            by_role[ROLES.index(slot.role), slot.tower].append((slot, count))
    left, right = sides
    for key in sorted({*left, *right}):
        yield from (_to_pair(one, other) for one, other in _pair(left[key], right[key]))


def _pair(left: list[Side], right: list[Side]) -> Iterator[tuple[Side | None, Side | None]]:
    """Yield pairs of one role: of one path, then of one name, then the rest, in order."""
    found: dict[int, Side | None] = {}
    rest = [*right]
    keys: tuple[Callable[[Slot], object], ...] = (_path_of, _name_of)
    for key in keys:
        for place, side in enumerate(left):
            same = None if place in found else next((one for one in rest if key(one[0]) == key(side[0])), None)
            if same is not None:
                found[place] = same
                rest.remove(same)
    for place, side in enumerate(left):
        is_alike = side[0].role not in UNLIKE  # in order, norms would be pairs by chance
        yield side, found[place] if place in found else rest.pop(0) if rest and is_alike else None
    yield from ((None, other) for other in rest)


def _path_of(slot: Slot) -> object:
    return slot.pattern, slot.blocks, slot.kind


def _name_of(slot: Slot) -> object:
    return tail_of(slot.pattern)


def _to_pair(left: Side | None, right: Side | None) -> SlotPair:
    one, other = left and left[0], right and right[0]
    known = one or other
    assert known is not None  # noqa: S101 - a pair has one at least
    adapted = left[1] if left else 0, right[1] if right else 0
    return SlotPair(known.role, known.tower, one, other, *adapted, tuple(_list_differences(one, other, adapted)))


def _list_differences(left: Slot | None, right: Slot | None, adapted: tuple[int, int]) -> Iterator[PairDifference]:
    if left is None or right is None:
        yield "missing"
        if any(adapted):
            yield "target"
        return
    known: dict[PairDifference, tuple[object, object]] = {
        "name": (left.pattern, right.pattern),
        "kind": (left.kind, right.kind),
        "count": (left.count, right.count),
        "size": (_size_of(left), _size_of(right)),
        "target": (adapted[0] / left.count, adapted[1] / right.count),
    }
    yield from (difference for difference, (ours, theirs) in known.items() if ours != theirs)


def _size_of(slot: Slot) -> float | None:
    """Return the parameters that each rank adds on one layer."""
    return None if slot.per_rank is None else slot.per_rank / slot.count
