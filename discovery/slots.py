"""Slots: role -> layer-path patterns, per tower and kind, with counts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from ..records import Layer, Slot


@lru_cache(maxsize=1 << 15)  # every step asks for the same paths
def pattern_of(path: str) -> str:
    """Return a path with every index replaced by ``*``."""
    return ".".join("*" if segment.isdecimal() else segment for segment in path.split("."))


def make_slots(layers: Iterable[Layer]) -> tuple[Slot, ...]:
    """Group labelled layers into slots, in the order in which the model holds them."""
    counts = Counter(map(_slot, layers))
    return tuple(replace(slot, count=count) for slot, count in counts.items())


def _slot(layer: Layer) -> Slot:
    where = (layer.tower, layer.role, layer.kind, pattern_of(layer.path), 0)
    return Slot(*where, layer.layout, layer.bypassed, layer.kernel, layer.live, layer.proof)
