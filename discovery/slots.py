"""Slots: role -> layer-path patterns, per tower and kind, with counts; and the fingerprint they amount to."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ..records import Layer, Slot
from ..targets import pattern_of

__all__ = ["fingerprint", "make_slots", "pattern_of"]


def make_slots(layers: Iterable[Layer]) -> tuple[Slot, ...]:
    """Group labelled layers into slots, in the order in which the model holds them."""
    counts = Counter(map(_slot, layers))
    return tuple(replace(slot, count=count) for slot, count in counts.items())


def _slot(layer: Layer) -> Slot:
    where = (layer.tower, layer.role, layer.kind, pattern_of(layer.path), 0)
    return Slot(*where, layer.layout, layer.bypassed, layer.kernel, layer.live, layer.proof)


def fingerprint(layers: Iterable[Layer]) -> str:
    """Return a ``sha256:`` digest of the structure: kinds and path patterns of what stands in the blocks.

    Width, depth, class names and the head do not enter, so a small build, a renamed class and another task class of
    the same architecture have the same fingerprint. A model without blocks is digested whole.
    """
    known = tuple(layers)
    blocks = [layer for layer in known if layer.depth] or known
    lines = sorted({f"{layer.kind} {pattern_of(layer.path)}" for layer in blocks})
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
