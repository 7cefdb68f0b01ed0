"""Relate builds of several depths: which verdict a layer of the full model has, by its place in its stack.

A layer may be dead because of its place alone: nothing reads the text stream of SD3's last block. A small build shows
that at another index than the full model has. So the verdicts of builds of two depths are explained by hypotheses
("the last block", "every second block"), and a verdict holds for the full model if the simplest hypotheses that explain
every build agree on it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import NamedTuple

MOST_PERIOD = 4
"""Longest period of a repetition of blocks that is considered."""


class Place(NamedTuple):
    """The place of a block in its stack."""

    first: int
    """Index from the first block, which has 0."""
    last: int
    """Index from the last block, which has 0."""


Places = tuple[Place, ...]
"""The places of a layer in the stacks around it, the outermost first."""

Hypothesis = Callable[[Places], bool]
"""Whether a layer at these places is dead."""


def find_places(paths: Collection[str]) -> dict[str, Places]:
    """Return the places of each path in the stacks of its model, whose lengths follow from all of its paths."""
    stacks: defaultdict[str, set[int]] = defaultdict(set)
    for path in paths:
        for prefix, index in _list_indices(path):
            stacks[prefix].add(index)
    order = {prefix: sorted(indices) for prefix, indices in stacks.items()}
    ranks = {prefix: {index: rank for rank, index in enumerate(indices)} for prefix, indices in order.items()}
    return {
        path: tuple(
            Place(ranks[prefix][index], len(order[prefix]) - 1 - ranks[prefix][index])
            for prefix, index in _list_indices(path)
        )
        for path in paths
    }


def _list_indices(path: str) -> list[tuple[str, int]]:
    segments = path.split(".")
    return [(".".join(segments[:at]), int(segment)) for at, segment in enumerate(segments) if segment.isdecimal()]


def relate(builds: Sequence[Mapping[Places, bool]], wanted: Iterable[Places]) -> dict[Places, bool | None]:
    """Return whether the layers of a pattern are dead at some places, given the dead and live ones of several builds.

    The simplest kind of hypothesis that explains every build decides: all or no layers; a block counted from either
    end, or all from there; every n-th block; two such bounds at once, of one stack or of two around the layer.

    Args:
        builds: For each build, whether a layer is dead, by its places.
        wanted: Places in the full model.

    Returns:
        By places; ``None`` where hypotheses of one kind explain every build and disagree, or none explains them.
    """
    seen = [item for build in builds for item in build.items()]
    explaining: list[Hypothesis] = []
    for kind in _list_hypotheses([places for places, _ in seen]):
        either = (*kind, *map(_not, kind))
        explaining = [each for each in either if all(each(places) is is_dead for places, is_dead in seen)]
        if explaining:
            break
    found: dict[Places, bool | None] = {}
    for places in wanted:
        opinions = {hypothesis(places) for hypothesis in explaining}
        found[places] = opinions.pop() if len(opinions) == 1 else None
    return found


def _list_hypotheses(seen: Sequence[Places]) -> Iterator[Sequence[Hypothesis]]:
    """Yield the hypotheses about a pattern's places by kind, the simplest first."""
    yield [lambda _: True]
    ends: list[list[Hypothesis]] = []
    for stack in range(len(seen[0]) if seen else 0):
        sides = [(side, index) for side in range(2) for index in {places[stack][side] for places in seen}]
        ends.append([make(stack, side, index) for side, index in sides for make in (_is_at, _is_from)])
    yield [hypothesis for each in ends for hypothesis in each]
    yield [
        _is_every(stack, period, rest)
        for stack in range(len(ends))
        for period in range(2, MOST_PERIOD + 1)
        for rest in range(period)
    ]
    yield [
        _both(one, other)
        for some, others in combinations_with_replacement(ends, 2)
        for one, other in product(some, others)
    ]


def _is_at(stack: int, side: int, index: int) -> Hypothesis:
    return lambda places: places[stack][side] == index


def _is_from(stack: int, side: int, index: int) -> Hypothesis:
    return lambda places: places[stack][side] >= index


def _is_every(stack: int, period: int, rest: int) -> Hypothesis:
    return lambda places: places[stack].first % period == rest


def _both(one: Hypothesis, other: Hypothesis) -> Hypothesis:
    return lambda places: one(places) and other(places)


def _not(hypothesis: Hypothesis) -> Hypothesis:
    return lambda places: not hypothesis(places)
