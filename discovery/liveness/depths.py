"""Relate builds of several depths: which verdict a layer of the full model has, by its place in its stack.

A layer may be dead because of its place alone: nothing reads the text stream of SD3's last block. A small build shows
that at another index than the full model has. So the verdicts of builds of two depths are explained by hypotheses
("the last block", "every second block"), and a verdict holds for the full model if the simplest hypotheses that explain
every build agree on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from ...domain.places import ANY, BlockRange, Place, Places

DEPTHS = range(1, 13)
"""Depths at which ranges are compared."""
MOST_PERIOD = 4
"""Longest period of a repetition of blocks that is considered."""


def relate(builds: Sequence[Mapping[Places, bool]]) -> "Relation":
    """Find the blocks of the dead layers of a pattern, given its dead and live layers in several builds.

    The simplest kind of range that explains every build decides: all or no blocks; a block counted from either end, or
    all from there; every n-th block; two such bounds at once, of one stack or of two around the layer.

    Args:
        builds: For each build, whether a layer is dead, by its places.
    """
    seen = [item for build in builds for item in build.items()]
    for kind in _list_ranges([places for places, _ in seen]):
        either = (*kind, *(blocks.complement() for blocks in kind))
        fitting = [blocks for blocks in either if all((places in blocks) is is_dead for places, is_dead in seen)]
        if fitting:
            return Relation(tuple(dict.fromkeys(fitting)), frozenset(places for places, _ in seen))
    return Relation((), frozenset())


@dataclass(frozen=True, slots=True)
class Relation:
    """The ranges of one kind that hold the dead layers of every build and none of the live ones.

    Attributes:
        fitting: The ranges; none if no kind explains every build.
        seen: The places in the builds.
    """

    fitting: tuple[BlockRange, ...]
    seen: frozenset[Places]

    def is_dead(self, places: Places) -> bool | None:
        """Return whether a layer at these places is dead; ``None`` where the ranges disagree."""
        opinions = {places in blocks for blocks in self.fitting}
        return opinions.pop() if len(opinions) == 1 else None

    @property
    def blocks(self) -> BlockRange | None:
        """The blocks of the dead layers at any depth; ``None`` if the ranges disagree at another one."""
        deeper = (
            (*places[:stack], Place(first, depth - 1 - first), *places[stack + 1 :])
            for places in self.seen
            for stack in range(len(places))
            for depth in DEPTHS
            for first in range(depth)
        )
        return self.fitting[0] if self.fitting and all(self.is_dead(each) is not None for each in deeper) else None


def _list_ranges(seen: Sequence[Places]) -> Iterator[Sequence[BlockRange]]:
    """Yield ranges of the blocks that were seen by kind, the simplest first."""
    stacks = range(len(seen[0]) if seen else 0)

    def at(ranges: Mapping[int, str]) -> BlockRange:
        return BlockRange(tuple(ranges.get(stack, ANY) for stack in stacks))

    yield [at({})]
    bounds = [
        [str(index) for index in {places[stack].first for places in seen}]
        + [str(-1 - index) for index in {places[stack].last for places in seen}]
        + [f"{index}:" for index in {places[stack].first for places in seen} if index]
        + [f":{-index}" for index in {places[stack].last for places in seen} if index]
        for stack in stacks
    ]
    yield [at({stack: bound}) for stack in stacks for bound in bounds[stack]]
    yield [
        at({stack: f"{rest}::{period}"})
        for stack in stacks
        for period in range(2, MOST_PERIOD + 1)
        for rest in range(period)
    ]
    inner = [
        at({stack: start + end[1:]})
        for stack in stacks
        for start, end in product(bounds[stack], repeat=2)
        if start.endswith(":") and end.startswith(":")
    ]
    nested = [
        at({outer: one, other: another})
        for outer, other in combinations(stacks, 2)
        for one, another in product(bounds[outer], bounds[other])
    ]
    yield [*inner, *nested]
