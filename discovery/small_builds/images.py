"""Small images: where the settings ask for large ones, all of them and the grids they become, by one factor."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from .config_tree import Path, Section, each_number, list_numbers
from .terms import meaning_of

FACTORS = (4, 2)
LARGE = 384
"""Sides from which an image costs more than all the rest."""
LEAST = 128
STRIDE = 32
"""What a side is divided by on its way through a usual convolutional network."""


def smaller_images(sections: Iterable[Section]) -> dict[Path, Any]:
    """Return what to change so that images are small; nothing if none is large, or no factor suits all of them."""
    known = [*sections]
    images = {path: value for section in known for path, value in _fields(section, "image") if _is_large(value)}
    patches = {path: _patch(section) for section in known for path, _ in _fields(section, "image")}
    grids = {path: value for section in known for path, value in _fields(section, "grid")}
    for factor in FACTORS if images else ():
        sides = {path: _divided(value, factor, patches[path]) for path, value in images.items()}
        fits = all(number % factor == 0 for value in grids.values() for number in list_numbers(value))
        if fits and None not in sides.values():
            return {
                **sides,
                **{path: each_number(value, partial(_over, factor)) for path, value in grids.items()},
            }
    return {}


def _over(factor: int, side: int) -> int:
    return side // factor


def _fields(section: Section, meaning: str) -> list[tuple[Path, Any]]:
    return [
        ((*section.path, name), value)
        for name, value in section.fields.items()
        if meaning_of(name) == meaning and value
    ]


def _is_large(value: Any) -> bool:
    return max(list_numbers(value), default=0) >= LARGE


def _patch(section: Section) -> int | None:
    """Return the side of the largest patch a section's image is cut into, if it is."""
    named = (value for name, value in section.fields.items() if name.startswith("patch_size"))
    return max((number for value in named for number in list_numbers(value)), default=None)


def _divided(value: Any, factor: int, patch: int | None) -> Any:
    """Return smaller sides, ``None`` if they cannot be: whole patches, or else what a convolutional network halves."""
    sides = [*list_numbers(value)]
    if min(sides) // factor < LEAST or (patch and any(side % (factor * patch) for side in sides)):
        return None
    return each_number(value, lambda side: side // factor if patch else side // factor // STRIDE * STRIDE)
