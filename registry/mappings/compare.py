"""Two mappings side by side: which layers one reaches and the other does not, told from the slots."""

import re
from collections.abc import Iterator
from itertools import count

from ...domain.layers import Layer, Slot
from ...domain.mappings import Mapping
from ...domain.submissions import Difference
from ...domain.targets import TargetSpec, find_hits
from ...errors import InvalidRequest
from ..db.schema import Reader
from ..versions.stored_names import list_slots
from .history import get_revision
from .not_found import unscanned

_FAR = (100, 1000)
"""Indices no model is likely to have all of: what hits these too hits any."""

_MOST = 64
"""Indices tried from 0 on at most: from there on a rule about indices repeats itself, or names them."""


def compare(reader: Reader, mapping_id: str, other_id: str) -> Difference:
    """Return which layers a mapping reaches that another one of its architecture does not, and the other way round.

    A slot stands for its layers: it is tried with many indices in the place of each ``*``. Where a spec tells indices
    apart, it hits some of a slot's layers. How many is not on record, and the number told is 0.

    Raises:
        UnknownMapping: If no revision has one of the ids.
        InvalidRequest: If they are of different architectures.
        NotRegistered: If nobody scanned the architecture.
    """
    one, other = (get_revision(reader, wanted).mapping for wanted in (mapping_id, other_id))
    if (one.library, one.name) != (other.library, other.name):
        message = (
            f"{one.library}:{one.name} and {other.library}:{other.name} are different architectures: their layers "
            "cannot be compared. Give two mappings of one architecture."
        )
        raise InvalidRequest(message, field="query.against", value=other_id)
    slots = list_slots(reader, one.library, one.name)
    if not slots:
        raise unscanned(reader, one.library, one.name)
    more, less = difference(one.spec, other.spec, slots)
    return Difference(_named(other), other.id, more, less)


def _named(mapping: Mapping) -> str:
    return f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"


def difference(spec: TargetSpec, other: TargetSpec, slots: tuple[Slot, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the slots one spec reaches more, and those it reaches less, each with the number of layers.

    The number is 0 where only some layers of a slot are meant.
    """
    literals = _indices_in(spec) | _indices_in(other)
    more, less = dict[str, int](), dict[str, int]()
    for slot in slots:
        tried = [*_layers(slot, literals)]
        every = frozenset(layer.path for layer in tried)
        ours, theirs = (frozenset(layer.path for layer in find_hits(which, tried)) for which in (spec, other))
        for found, gone in ((more, ours - theirs), (less, theirs - ours)):
            if gone:
                found[slot.pattern] = slot.count if gone == every else 0
    return more, less


def _layers(slot: Slot, literals: set[int]) -> Iterator[Layer]:
    """Yield layers that the slot may stand for: each index in turn, and all indices together, take every value."""
    segments = slot.pattern.split(".")
    places = [place for place, segment in enumerate(segments) if segment == "*"]
    values = sorted({*range(min(slot.count, _MOST) + 1), *literals, *(value + 1 for value in literals), *_FAR})
    for value in values if places else (0,):
        for varied in [places] if len(places) < 2 else [places, *([place] for place in places)]:  # noqa: PLR2004 - together and each
            path = [
                str(value) if place in varied else "0" if segment == "*" else segment
                for place, segment in zip(count(), segments, strict=False)
            ]
            yield Layer(".".join(path), slot.kind, "", ())


def _indices_in(spec: TargetSpec) -> set[int]:
    """Return the numbers a spec names anywhere, among them every index it treats by itself."""
    return {int(digits) for digits in re.findall(r"\d{1,6}", repr(spec))}
