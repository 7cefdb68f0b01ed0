"""Shrink settings: narrow widths, fewer layers and experts, shorter vocabularies and smaller images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .config_tree import Path, Section, each_number, is_number, list_numbers, list_sections, meaning_of, replaced
from .widths import narrowed

DEPTHS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Numbers of layers that are tried, before a stack is left as deep as it is."""
FEW_EXPERTS = 4
FACTORS = (4, 2)
"""Factors of images that are tried."""
LARGE = 384
"""Side from which an image costs more than the rest of a build."""
LEAST = 128
STRIDE = 32
"""Divisor of a side in a usual convolutional network."""
STRETCH = 512
"""Tokens kept between two that settings name."""


@dataclass(frozen=True, slots=True)
class Shrink:
    """A change that shrinks the settings of a model, or of another model that holds it.

    Attributes:
        most: The largest divisor of widths.
        depth: The number of layers a stack keeps, unless it needs more; all of them if ``None``.
        is_terse: Whether vocabularies, numbers of experts and large images shrink.
        has_fewer_heads: Whether narrow attention has fewer heads of their full width, not as many narrow ones.
    """

    most: int
    depth: int | None
    is_terse: bool
    has_fewer_heads: bool = False

    def __call__(self, settings: Any) -> Any:
        """Return smaller settings."""
        return replaced(settings, self.list_changes(settings))

    def list_changes(self, settings: Any) -> dict[Path, Any]:
        """Return the new values, by their paths."""
        sections = list_sections(settings)
        changes, _ = narrowed(sections, self.most, has_fewer_heads=self.has_fewer_heads)
        if self.is_terse:
            changes = {**fewer_tokens(sections), **fewer_experts(sections), **smaller_images(sections), **changes}
        return _drop_unchanged(sections, {**changes, **(shallowed(sections, self.depth) if self.depth else {})})

    def describe(self, settings: Any) -> str:
        """Return how much of the full model is left, in words."""
        sections = list_sections(settings)
        _, factors = narrowed(sections, self.most, has_fewer_heads=self.has_fewer_heads)
        widths = " and ".join(f"1/{factor}" for factor in sorted(factors))
        is_cut = self.depth and _drop_unchanged(sections, shallowed(sections, self.depth))
        parts = [
            f"{widths} of its widths" if factors else "at full width",
            f"{self.depth} layers of each stack, or as many as it has kinds" if is_cut else "at full depth",
            *(["smaller images"] if self.is_terse and smaller_images(sections) else []),
        ]
        return ", ".join(parts)


def _drop_unchanged(sections: list[Section], values: dict[Path, Any]) -> dict[Path, Any]:
    old = {(*section.path, name): value for section in sections for name, value in section.fields.items()}
    return {path: value for path, value in values.items() if value != old[path]}


# --- layers and experts -----------------------------------------------------------------------------------------------


class _TooFew(Exception):
    """A cut that would lose a kind of layer in a per-layer list, or a mark of some layers."""


def shallowed(sections: list[Section], depth: int) -> dict[Path, Any]:
    """Return the changes that leave ``depth`` layers in a stack, or as many as hold every kind of layer."""
    changes: dict[Path, Any] = {}
    for section in sections:
        for enough in (depth, *(more for more in DEPTHS if more > depth)):
            try:
                changes |= {(*section.path, name): value for name, value in _cut_section(section, enough).items()}
            except _TooFew:
                continue
            break
    return changes


def _cut_section(section: Section, depth: int) -> dict[str, Any]:
    """Return the fields of a section that change when its stacks keep ``depth`` layers, if those are enough."""
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
        """Return indices of layers at the same share of the depth, as many as before and not of every layer."""
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


# --- tokens and images ------------------------------------------------------------------------------------------------


def smaller_images(sections: Iterable[Section]) -> dict[Path, Any]:
    """Return the changes that make images small; none if no image is large, or no factor suits all of them."""
    images: list[tuple[Path, Any, int | None]] = []
    grids: dict[Path, Any] = {}
    for section in sections:
        large = [(n, v) for n, v in section.list_fields("image") if max(list_numbers(v), default=0) >= LARGE]
        images += [((*section.path, name), value, _find_patch(section)) for name, value in large]
        grids |= {(*section.path, name): value for name, value in section.list_fields("grid")}
    for factor in FACTORS if images else ():
        sides = {path: _divide_sides(value, factor, patch) for path, value, patch in images}
        fits = not any(number % factor for number in list_numbers([*grids.values()]))
        if fits and None not in sides.values():
            return sides | {path: _divide(value, factor) for path, value in grids.items()}
    return {}


def _find_patch(section: Section) -> int | None:
    """Return the side of the largest patch that a section's image is cut into, if it is."""
    patches = [value for name, value in section.fields.items() if name.startswith("patch_size")]
    return max(list_numbers(patches), default=None)


def _divide_sides(value: Any, factor: int, patch: int | None) -> Any:
    """Return smaller sides of whole patches, or of a multiple of ``STRIDE``; ``None`` if there are none."""
    sides = [*list_numbers(value)]
    if min(sides) // factor < LEAST or (patch and any(side % (factor * patch) for side in sides)):
        return None
    return _divide(value, factor) if patch else each_number(value, lambda side: side // factor // STRIDE * STRIDE)


def _divide(value: Any, factor: int) -> Any:
    return each_number(value, lambda side: side // factor)


def fewer_tokens(sections: Iterable[Section]) -> dict[Path, Any]:
    """Return the changes that make vocabularies short and keep the tokens that settings name.

    Tokens keep their order, and their distances up to ``STRETCH``.
    """
    named = [
        ((*section.path, name), value)
        for section in sections
        for name, value in section.fields.items()
        if meaning_of(name) in ("vocabulary", "token")
    ]
    numbers = {number for _, value in named for number in list_numbers(value) if number > 0}
    renumbered: dict[int, int] = {}
    last = new = 0
    for number in sorted(numbers):
        new += min(number - last, STRETCH)
        renumbered[number], last = new, number
    return {path: each_number(value, lambda n: renumbered.get(n, n)) for path, value in named if value}
