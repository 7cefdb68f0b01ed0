"""Small inputs: images and the grids they become, divided by one factor, and vocabularies without unnamed tokens."""

from collections.abc import Iterable
from typing import Any

from .config_tree import Path, Section, each_number, list_numbers, meaning_of

FACTORS = (4, 2)
LARGE = 384
"""Side from which an image costs more than the rest of a build."""
LEAST = 128
STRIDE = 32
"""Divisor of a side in a usual convolutional network."""
STRETCH = 512
"""Tokens kept between two that settings name."""


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
