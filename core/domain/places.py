"""Name blocks by their places in the stacks around a layer: the last block is the last one at every depth."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

ANY = "*"
"""A range of every block."""
_NOT = "not "


class Place(NamedTuple):
    """The place of a block in its stack."""

    first: int
    """Index from the first block, which has 0."""
    last: int
    """Index from the last block, which has 0."""


Places = tuple[Place, ...]
"""The places of a layer in the stacks around it, the outermost first: one for each index in its path."""


@dataclass(frozen=True, slots=True)
class BlockRange:
    """Some blocks of the stacks around a layer, at any depth.

    Attributes:
        ranges: For each stack, an index or slice as in Python (``0``, ``-1``, ``:-1``, ``1::2``), or ``*``.
        is_negated: Whether every other block is meant.
    """

    ranges: tuple[str, ...]
    is_negated: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the form that ``str`` gives: ``-1``, ``*/0``, ``not 2``."""
        return cls(tuple(text.removeprefix(_NOT).split("/")), text.startswith(_NOT))

    def __str__(self) -> str:
        """Return the ranges, the outermost first, separated by slashes."""
        return f"{_NOT if self.is_negated else ''}{'/'.join(self.ranges)}"

    def __contains__(self, places: Places) -> bool:
        """Return whether a layer at these places is in one of the blocks."""
        return all(map(_is_in, self.ranges, places)) is not self.is_negated

    def complement(self) -> Self:
        """Return every other block, as a range of its own where there is one."""
        bounds = [stack for stack, text in enumerate(self.ranges) if text != ANY]
        if not self.is_negated and len(bounds) == 1:
            (stack,) = bounds
            other = _other_range(self.ranges[stack])
            if other:
                return type(self)((*self.ranges[:stack], other, *self.ranges[stack + 1 :]))
        return type(self)(self.ranges, not self.is_negated)


def _is_in(text: str, place: Place) -> bool:
    depth = place.first + place.last + 1
    if text == ANY:
        return True
    if ":" not in text:
        return int(text) in (place.first, place.first - depth)
    return place.first in range(depth)[slice(*(int(part) if part else None for part in text.split(":")))]


def _other_range(text: str) -> str | None:
    """Return the blocks on the other side of an end of a stack; ``None`` if they are no single range."""
    start, colon, end = text.partition(":")
    if not colon:
        return {"0": "1:", "-1": ":-1"}.get(text)
    if ":" in end or (start and end):
        return None
    if end:
        return "-1" if end == "-1" else f"{end}:"
    return "0" if start == "1" else f":{start}"


def find_places(paths: Collection[str]) -> dict[str, Places]:
    """Return the places of each path in the stacks of its model, whose lengths follow from all of its paths."""
    stacks: defaultdict[str, set[int]] = defaultdict(set)
    for path in paths:
        for prefix, index in _list_indices(path):
            stacks[prefix].add(index)
    ranks = {prefix: _rank(indices) for prefix, indices in stacks.items()}
    return {path: tuple(ranks[prefix][index] for prefix, index in _list_indices(path)) for path in paths}


def _rank(indices: Collection[int]) -> Mapping[int, Place]:
    return {index: Place(rank, len(indices) - 1 - rank) for rank, index in enumerate(sorted(indices))}


def _list_indices(path: str) -> list[tuple[str, int]]:
    segments = path.split(".")
    return [(".".join(segments[:at]), int(segment)) for at, segment in enumerate(segments) if segment.isdecimal()]
