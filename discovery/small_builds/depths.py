"""Shallow settings: fewer layers in every stack, the per-layer lists that go with them, and fewer experts."""

from dataclasses import dataclass
from typing import Any

from .config_tree import Path, Section, each_number, is_number, list_numbers, meaning_of

FEW_EXPERTS = 4


DEPTHS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Numbers of layers that are tried, before a stack is left as deep as it is."""


class _TooFew(Exception):
    """A cut that would lose a kind of layer in a per-layer list, or a mark of some layers."""


def shallowed(sections: list[Section], depth: int) -> dict[Path, Any]:
    """Return the changes that leave ``depth`` layers in a stack, or as many as hold every kind of layer."""
    changes: dict[Path, Any] = {}
    for section in sections:
        for enough in DEPTHS[DEPTHS.index(depth) :]:
            try:
                changes |= {(*section.path, name): value for name, value in _cut_section(section, enough).items()}
            except _TooFew:
                continue
            break
    return changes


def _cut_section(section: Section, depth: int) -> dict[str, Any]:
    """Return the fields of a section that change when its stacks keep ``depth`` layers.

    Raises:
        _TooFew: If so few layers do not hold every kind.
    """
    fields = section.fields
    depths = {name: value for name, value in fields.items() if meaning_of(name) == "depth"}
    changed = {name: each_number(value, lambda number: min(number, depth)) for name, value in depths.items()}
    old = max(filter(is_number, depths.values()), default=0)
    if old > depth:
        last = max((value for _, value in section.list_fields("last")), default=0)
        cut = _Cut(old, depth, last)
        changed |= {name: cut.follow(name, value) for name, value in fields.items() if name not in depths}
    return {name: value for name, value in changed.items() if value is not fields[name]}


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stack cut to its first layers.

    Attributes:
        old: The number of layers before.
        depth: The number of layers after.
        last: The number of last layers that depend on those before them, which then must be of every kind.
    """

    old: int
    depth: int
    last: int

    def follow(self, name: str, value: Any) -> Any:
        """Return the value of a field that describes each layer, or some, for the cut stack.

        Raises:
            _TooFew: If the first layers do not have every value of a per-layer list, or not every mark.
        """
        if isinstance(value, list | tuple) and len(value) == self.old:
            is_index = [*value] == [*range(self.old)]
            if not is_index and {*map(repr, value[: self.depth - self.last])} != {*map(repr, value)}:
                raise _TooFew
            return value[: self.depth]
        meaning = meaning_of(name)
        if meaning in ("special", "last") and is_number(value) and self.depth <= value < self.old:
            raise _TooFew
        if meaning == "special" and isinstance(value, list | tuple) and value and all(map(is_number, value)):
            return self.renumber(value)
        return value

    def renumber(self, indices: Any) -> Any:
        """Return indices of layers at the same share of the depth.

        Raises:
            _TooFew: If two of them become one, or no layer is left without a mark.
        """
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
    """Return the changes that leave just enough experts for those chosen per token; a number is halved as it can be."""
    changes: dict[Path, Any] = {}
    for section in sections:
        largest: dict[str, int] = {}
        for name, value in section.fields.items():
            largest[meaning_of(name)] = max([largest.get(meaning_of(name), 0), *list_numbers(value)])
        least = max(FEW_EXPERTS, largest.get("chosen", 0), 2 * largest.get("expert_groups", 0))
        for name, count in section.list_fields("experts"):
            if not is_number(count) or count <= least:
                continue
            fewer = count
            while fewer % 2 == 0 and fewer // 2 >= least:
                fewer //= 2
            changes[*section.path, name] = fewer
    return changes
