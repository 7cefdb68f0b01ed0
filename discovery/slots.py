"""Slots: role -> layer-path patterns, per tower and kind, with counts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ..domain.layers import Layer, Slot
from ..domain.patterns import pattern_of


def make_slots(layers: Iterable[Layer]) -> tuple[Slot, ...]:
    """Group labelled layers into slots, in the order in which the model holds them."""
    counts = Counter(map(_slot, layers))
    return tuple(replace(slot, count=count) for slot, count in counts.items())


def _slot(layer: Layer) -> Slot:
    where = (layer.tower, layer.role, layer.kind, pattern_of(layer.path), 0)
    return Slot(*where, layer.layout, layer.bypassed, layer.kernel, layer.live, layer.proof)
