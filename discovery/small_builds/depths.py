"""Shallow settings: fewer layers in every stack, with the per-layer lists that go with them; and fewer experts."""

from dataclasses import dataclass
from typing import Any

from .config_tree import Path, Section, each_number, is_number, list_numbers
from .terms import meaning_of

FEW_EXPERTS = 4


DEPTHS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Numbers of layers that are tried, before a stack is left as deep as it is."""


def shallowed(sections: list[Section], depth: int) -> dict[Path, Any]:
    """Return what to change so that a stack has ``depth`` layers, or as many as hold every kind of layer known of."""
    changes = ((section.path, name, value) for section in sections for name, value in _shallow(section, depth).items())
    return {(*path, name): value for path, name, value in changes}


def _shallow(section: Section, depth: int) -> dict[str, Any]:
    for enough in DEPTHS[DEPTHS.index(depth) :]:
        try:
            return _cut(section, enough)
        except _TooFew:
            continue
    return {}


class _TooFew(Exception):
    """So few layers would lose a kind that a list tells of, or what marks some of them."""


def _cut(section: Section, depth: int) -> dict[str, Any]:
    numbers = {name: value for name, value in section.fields.items() if meaning_of(name) == "depth"}
    fewer = {name: each_number(value, lambda number: min(number, depth)) for name, value in numbers.items()}
    cut = {value for value in numbers.values() if is_number(value) and value > depth}
    if cut:
        others = {name: value for name, value in section.fields.items() if name not in numbers}
        followed = _Cut(
            max(cut), depth, max((v for n, v in others.items() if meaning_of(n) == "last" and v), default=0)
        )
        fewer |= {name: followed.follow(name, value) for name, value in others.items()}
    return {name: value for name, value in fewer.items() if value is not section.fields[name]}


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stack cut to its first layers.

    Attributes:
        old: How many layers it had.
        depth: How many it has.
        last: How many of the last depend on those before them, which have to be of every kind then.
    """

    old: int
    depth: int
    last: int

    def follow(self, name: str, value: Any) -> Any:
        """Return what a field that tells something of each layer, or of some, is with fewer of them."""
        if isinstance(value, list | tuple) and len(value) == self.old:
            return self._first(value)
        meaning = meaning_of(name)
        if meaning in ("special", "last") and is_number(value) and self.depth <= value < self.old:
            raise _TooFew
        if meaning == "special" and isinstance(value, list | tuple) and value and all(map(is_number, value)):
            return self._renumbered(value)
        return value

    def _first(self, value: Any) -> Any:
        """Return what a per-layer list says of the first layers, if every value in it is among them, or its index."""
        if [*value] == [*range(self.old)]:
            return value[: self.depth]
        if {*map(repr, value[: self.depth - self.last])} != {*map(repr, value)}:
            raise _TooFew
        return value[: self.depth]

    def _renumbered(self, indices: Any) -> Any:
        """Return indices of layers as far along as they were, if there is a layer for each and for none of them."""
        if min(indices) < 0 or max(indices) > self.old:
            return indices
        if [*indices] == [*range(self.old)]:
            return indices[: self.depth]
        fewer = [self.depth if i == self.old else max(0, (i + 1) * self.depth // self.old - 1) for i in indices]
        marked = len({*indices})
        if len({*fewer}) < marked or marked == self.depth:
            raise _TooFew
        return type(indices)(fewer)


def fewer_experts(sections: list[Section]) -> dict[Path, Any]:
    """Return what to change so that there are just enough experts for those chosen per token."""
    changes: dict[Path, Any] = {}
    for section in sections:
        by_meaning: dict[str, int] = {}
        for name, value in section.fields.items():
            by_meaning[meaning_of(name)] = max([by_meaning.get(meaning_of(name), 0), *list_numbers(value)])
        least = max(FEW_EXPERTS, by_meaning.get("chosen", 0), 2 * by_meaning.get("expert_groups", 0))
        for name, value in section.fields.items():
            if meaning_of(name) == "experts" and is_number(value) and value > least:
                changes[*section.path, name] = _halved(value, least)
    return changes


def _halved(count: int, least: int) -> int:
    while count % 2 == 0 and count // 2 >= least:
        count //= 2
    return count
