"""Sources of values: for every value of a tape, the layers that wrote it and the effects on the way.

A value's *sources* are the origins it was made from by operations that keep features apart (views, norms, activations,
sums, gates). An origin makes new features: a layer that was applied, a product of two activations, an attention, or a
residual stream, which is the sum of a value and something computed from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from .operations import Tape


class Effect:
    """Effects on a source on its way to a value: bits of a number, because millions of them are combined."""

    NONE: Final = 0
    ACTIVATED: Final = 1
    MULTIPLIED: Final = 2  # with something from another source
    SOFTMAXED: Final = 4
    FLIPPED: Final = 8  # last two dimensions exchanged
    POOLED: Final = 16
    DECAYED: Final = 32  # went through a running sum, or a gate of a recurrence
    SCANNED: Final = 64  # taken apart position by position
    EXPONENTIATED: Final = 128  # went through exp: a decay, or a feature of a kernel


MOST_PARTS = 24
"""Slices of one origin that are distinguished; one that is taken apart further is taken apart by position."""
MOST_SOURCES = 128
"""Sources of one value; a value made of more is a stream, by any operation."""
Sources = dict[tuple[int, int], int]
"""(origin, part) -> effects. Parts distinguish slices of one origin; 0 is the whole."""


@dataclass(slots=True)
class Origin:
    """An operation that made new features.

    Attributes:
        kind: ``layer``, ``product``, ``attention``, ``stream`` or ``input`` (a float given to the forward).
        op: The operation, by its number on the tape.
        out: The value it made.
        reads: Sources of its operands: one entry for a layer, two for a product (left, right), three for an
            attention (query, key, value), two for a stream (skipped, branch).
        read_values: The operands, in the same order.
        site: Path of the module whose forward ran it.
        name: The operation's name.
        layer: (module path, parameter name) of a layer's weight.
    """

    kind: str
    op: int
    out: int
    reads: tuple[Sources, ...]
    read_values: tuple[int, ...]
    site: str
    name: str
    layer: tuple[str, str] | None = None


@dataclass(slots=True)
class Ranking:
    """A top-k, maximum or softmax over the last dimension of a layer's output, as in a router.

    Attributes:
        sources: The layers.
        size: The number of outputs that are ranked.
        site: Where.
        name: The operation.
        chosen: The number of outputs that it chooses; 0 if it orders or weights them all.
    """

    sources: Sources
    size: int
    site: str
    name: str
    chosen: int = 0


@dataclass(slots=True)
class Flow:
    """The result of following a tape.

    Attributes:
        tape: The tape.
        origins: Every origin, in order.
        rankings: Every ranking of a layer's outputs.
        sources: Sources of each value.
        data: Values that depend on the model's inputs.
        weight_of: (module path, parameter name) for each value that is a parameter, or a view, cast or scaling of one.
        producer: Number of the operation that made each value.
        base: For each value the first one that it only transforms.
        parts: Numbers of the slices of each origin.
        spread: Origins in a factor that is spread over a larger one.
    """

    tape: Tape
    origins: list[Origin] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    sources: dict[int, Sources] = field(default_factory=dict)
    data: set[int] = field(default_factory=set)
    weight_of: dict[int, tuple[str, str]] = field(default_factory=dict)
    producer: dict[int, int] = field(default_factory=dict)
    base: dict[int, int] = field(default_factory=dict)
    parts: dict[int, dict[tuple[Any, ...], int]] = field(default_factory=dict)
    spread: set[int] = field(default_factory=set)

    def read(self, value: int) -> Sources:
        """Return the sources of a value; none if it comes from no layer."""
        return self.sources.get(value, {})

    def layers(self, sources: Iterable[tuple[int, int]]) -> list[Origin]:
        """Return the layers among sources."""
        origins = (self.origins[origin] for origin, _ in sources)
        return [origin for origin in origins if origin.kind == "layer"]
