"""Compare two mappings of one architecture: the layers that only one of them matches, derived from the slots."""

import re
from collections.abc import Iterator
from itertools import product

from sqlalchemy import Connection

from ...domain.layers import Layer, Slot
from ...domain.submissions import Difference
from ...domain.targets import TargetSpec, find_hits, resolve_blocks
from ...errors import InvalidRequest
from .history import get_revision
from .not_found import unscanned
from .stored_names import list_slots

_FAR = (100, 1000)
"""Indices that few models have: a target that matches these too matches any."""

_MOST = 64
"""Number of indices tried from 0 on: beyond it a rule about indices repeats itself, or names them."""


def compare(connection: Connection, mapping_id: str, other_id: str) -> Difference:
    """Return the layers that only the first mapping matches, and those that only the other matches."""
    mapping, other = (get_revision(connection, one).mapping for one in (mapping_id, other_id))
    if mapping.architecture != other.architecture:
        message = (
            f"{mapping.library}:{mapping.name} and {other.library}:{other.name} are different architectures: their "
            "layers cannot be compared. Give two mappings of one architecture."
        )
        raise InvalidRequest(message, field="query.against", value=other_id)
    slots = list_slots(connection, mapping.library, mapping.name)
    if not slots:
        raise unscanned(connection, mapping.library, mapping.name)
    against = f"{other.source.kind} {other.source.version}, revision {other.revision}"
    more, less = difference(mapping.spec, other.spec, slots)
    return Difference(against, other.id, more, less)


def difference(spec: TargetSpec, other: TargetSpec, slots: tuple[Slot, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the patterns that only ``spec`` matches, and those that only ``other`` matches, with numbers of layers.

    Layers are derived from the slots, with many indices in the place of each ``*``. Where a spec distinguishes
    indices, it matches some layers of a slot: their number is not on record, and 0 is returned.
    """
    spec, other = resolve_blocks(spec), resolve_blocks(other)
    literals = _indices_in(spec) | _indices_in(other)
    more, less = dict[str, int](), dict[str, int]()
    for slot in slots:
        layers = [*_layers(slot, literals)]
        ours, theirs = set(find_hits(spec, layers)), set(find_hits(other, layers))
        if ours - theirs:
            more[slot.pattern] = slot.count if ours - theirs == set(layers) else 0
        if theirs - ours:
            less[slot.pattern] = slot.count if theirs - ours == set(layers) else 0
    return more, less


def _layers(slot: Slot, literals: set[int]) -> Iterator[Layer]:
    """Yield layers of a slot: each index in turn, and all indices together, take every value."""
    segments = slot.pattern.split(".")
    indices = [index for index, segment in enumerate(segments) if segment == "*"]
    values = sorted({*range(min(slot.count, _MOST) + 1), *literals, *(value + 1 for value in literals), *_FAR})
    groups = [indices] if len(indices) < 2 else [indices, *([index] for index in indices)]  # noqa: PLR2004 - together and each
    for value, varied in product(values if indices else (0,), groups):
        path = [segment if segment != "*" else "0" for segment in segments]
        for index in varied:
            path[index] = str(value)
        yield Layer(".".join(path), slot.kind, "", ())


def _indices_in(spec: TargetSpec) -> set[int]:
    """Return the numbers in a spec, among them every index it distinguishes."""
    return {int(digits) for digits in re.findall(r"\d{1,6}", repr(spec))}
