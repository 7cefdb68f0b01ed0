"""Name blocks by their places in the stacks around a layer: the last block is the last one at every depth."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

ANY = "*"
"""A range of every block."""
_NOT = "not "
_INDEX = re.compile(r"\[([^\]]+) of (\d+)\]")


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


@dataclass(frozen=True, slots=True)
class BlockPattern:
    """The end of the paths of layers in some blocks, at any depth: ``layer.[-1 of 12].attention.self.layout_value``.

    Attributes:
        names: The segments; ``*`` in the place of an index that the blocks decide.
        blocks: The blocks, one range for each index in the path; ``*`` for an index that is named.
        depths: The numbers of blocks of the stacks in the model that was scanned, one for each ``*`` in the names.
    """

    names: tuple[str, ...]
    blocks: BlockRange
    depths: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the form that ``str`` gives."""
        segments = [(segment, _INDEX.fullmatch(segment)) for segment in text.split(".")]
        return cls(
            tuple(ANY if index else name for name, index in segments),
            BlockRange(tuple(index[1] if index else ANY for name, index in segments if index or name.isdecimal())),
            tuple(int(index[2]) for _, index in segments if index),
        )

    @classmethod
    def find(cls, paths: Collection[str], places: Mapping[str, Places], blocks: BlockRange) -> Self | None:
        """Return the shortest pattern that names these layers of a model and no other ones.

        Args:
            paths: The layers, which differ in indices alone.
            places: The places of all layers of the model.
            blocks: The blocks that they are in.

        Returns:
            ``None`` if there is none: the blocks are no range, an index is not the number of blocks before it, or
            stacks of different depths are counted from the end.
        """
        names, depths = _open_decided(paths, places, blocks.ranges)
        if blocks.is_negated or not all(depths):
            return None
        first = next(position for position, name in enumerate(names) if name == ANY or name.isdecimal())
        patterns = (cls(tuple(names[start:]), blocks, depths) for start in range(max(first - 1, 0), -1, -1))
        return next((pattern for pattern in patterns if {*pattern.list_in(places)} == {*paths}), None)

    def __str__(self) -> str:
        """Return the path with ``[range of depth]`` in the place of each index that the blocks decide."""
        return self._fill(f"[{text} of {depth}]" for text, depth in self._decided)

    def list_scanned(self) -> tuple[str, ...]:
        """Return the ends of the paths in the model that was scanned."""
        stacks = [
            [str(index) for index in range(depth) if _is_in(text, Place(index, depth - 1 - index))]
            for text, depth in self._decided
        ]
        return tuple(map(self._fill, product(*stacks)))

    def list_in(self, places: Mapping[str, Places]) -> tuple[str, ...]:
        """Return the paths of the layers in a model of any depth, by the places of its layers."""
        count = len(self.blocks.ranges)
        return tuple(path for path, each in places.items() if self._ends(path) and each[-count:] in self.blocks)

    def is_of(self, pattern: str, blocks: str | None) -> bool:
        """Return whether the layers of a slot, with its pattern and its blocks, are among these."""
        own = ".".join(ANY if name.isdecimal() else name for name in self.names)
        return blocks == str(self.blocks) and f".{pattern}".endswith(f".{own}")

    @property
    def _decided(self) -> list[tuple[str, int]]:
        """The range and the depth for each ``*`` in the names."""
        indices = (name for name in self.names if name == ANY or name.isdecimal())
        ranges = (text for name, text in zip(indices, self.blocks.ranges, strict=True) if name == ANY)
        return [*zip(ranges, self.depths, strict=True)]

    def _ends(self, path: str) -> bool:
        segments = path.split(".")[-len(self.names) :]
        return len(segments) == len(self.names) and all(
            segment.isdecimal() if name == ANY else segment == name
            for name, segment in zip(self.names, segments, strict=True)
        )

    def _fill(self, indices: Iterable[str]) -> str:
        given = iter(indices)
        return ".".join(next(given) if name == ANY else name for name in self.names)


def _open_decided(
    paths: Collection[str], places: Mapping[str, Places], ranges: Sequence[str]
) -> tuple[list[str], tuple[int, ...]]:
    """Return the segments of the paths with ``*`` for each index that the ranges decide, and the depths of its stacks.

    An index that all paths share, and no range decides, stays.
    """
    names = next(iter(paths)).split(".")
    positions = [position for position, name in enumerate(names) if name.isdecimal()]
    depths: list[int] = []
    for stack, (position, text) in enumerate(zip(positions, ranges, strict=True)):
        indices = {path.split(".")[position] for path in paths}
        if text != ANY or len(indices) > 1:
            names[position] = ANY
            depths.append(_find_depth(text, indices, {places[path][stack] for path in paths}))
    return names, tuple(depths)


def _find_depth(text: str, indices: Collection[str], known: Collection[Place]) -> int:
    """Return the number of blocks of the stacks that a range is of, the largest one; 0 if it does not name them.

    An index must be the number of blocks before it, and a range that counts from the end needs stacks of one depth.
    """
    depths = {place.first + place.last + 1 for place in known}
    is_exact = indices == {str(place.first) for place in known} and (len(depths) == 1 or "-" not in text)
    return max(depths) if is_exact else 0


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
    ranks = {
        prefix: {index: Place(rank, len(indices) - 1 - rank) for rank, index in enumerate(sorted(indices))}
        for prefix, indices in stacks.items()
    }
    return {path: tuple(ranks[prefix][index] for prefix, index in _list_indices(path)) for path in paths}


def _list_indices(path: str) -> list[tuple[str, int]]:
    segments = path.split(".")
    return [(".".join(segments[:at]), int(segment)) for at, segment in enumerate(segments) if segment.isdecimal()]
