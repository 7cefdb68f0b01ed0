"""Where tensors come from: for every value of a tape, which layers wrote it and how it got here.

A value's *sources* are the origins it was made from by operations that keep features apart (views, norms, activations,
sums, gates). An origin is what makes new features: a layer that was applied, a product of two activations, an
attention, or a residual stream, which is the sum of a value and something computed from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from .tape import Tape


class Way:
    """What happened to a source on its way to a value: bits of a number, because millions of them are combined."""

    NONE: Final = 0
    ACTIVATED: Final = 1
    MULTIPLIED: Final = 2  # with something from another source
    SOFTMAXED: Final = 4
    FLIPPED: Final = 8  # last two dimensions exchanged
    POOLED: Final = 16
    DECAYED: Final = 32  # went through exp or a running sum
    SCANNED: Final = 64  # taken apart position by position


MOST_PARTS = 24
"""Slices of one origin told apart; one that is taken apart further is taken apart by position."""
MOST_SOURCES = 128
"""Sources of one value; what is made of more is a stream, whatever joins them."""
Sources = dict[tuple[int, int], int]
"""(origin, part) -> its way. Parts tell slices of one origin apart; 0 is the whole."""


@dataclass(slots=True)
class Origin:
    """What made new features.

    Attributes:
        kind: ``layer``, ``product``, ``attention``, ``stream`` or ``input`` (a float given to the forward).
        op: The operation, by its number on the tape.
        out: The value it made.
        reads: Sources of what it reads: one entry for a layer, two for a product (left, right), three for an
            attention (query, key, value), two for a stream (skipped, branch).
        read_values: The values themselves, in the same order.
        layer: (module path, parameter name) of a layer's weight.
        site: Path of the module whose forward ran it.
        name: The operation's name.
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
    """A top-k, maximum or softmax over the last dimension of a layer's output: what a router does."""

    sources: Sources
    size: int
    site: str
    name: str


@dataclass(slots=True)
class Flow:
    """Everything the pass found.

    Attributes:
        tape: What it is about.
        origins: Every origin, in order.
        rankings: Every ranking of a layer's outputs.
        sources: Sources of each value.
        data: Values that depend on the model's inputs.
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

    def read(self, value: int) -> Sources:
        """Return the sources of a value; none if it comes from no layer."""
        return self.sources.get(value, {})

    def layers(self, sources: Iterable[tuple[int, int]]) -> list[Origin]:
        """Return the layers among sources."""
        found = (self.origins[origin] for origin, _ in sources)
        return [origin for origin in found if origin.kind == "layer"]
