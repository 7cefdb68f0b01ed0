"""Small images: where the settings ask for large ones, all of them and the grids they become, by one factor."""

from collections.abc import Iterable
from typing import Any

from .settings import Path, Section, each_number, list_numbers
from .words import meaning_of

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
    strides = {path: _stride(section) for section in known for path, _ in _fields(section, "image")}
    grids = {path: value for section in known for path, value in _fields(section, "grid")}
    for factor in FACTORS if images else ():
        fits = all(_suits(value, factor, strides[path]) for path, value in images.items())
        if fits and all(number % factor == 0 for value in grids.values() for number in list_numbers(value)):
            return {path: each_number(value, lambda n: n // factor) for path, value in {**images, **grids}.items()}  # noqa: B023 - used at once
    return {}


def _fields(section: Section, meaning: str) -> list[tuple[Path, Any]]:
    return [
        ((*section.path, name), value)
        for name, value in section.fields.items()
        if meaning_of(name) == meaning and value
    ]


def _is_large(value: Any) -> bool:
    return max(list_numbers(value), default=0) >= LARGE


def _stride(section: Section) -> int:
    """Return what the sides of a section's image have to be a multiple of."""
    patches = [
        number
        for name, value in section.fields.items()
        if name.startswith("patch_size")
        for number in list_numbers(value)
    ]
    return max(patches, default=STRIDE)


def _suits(value: Any, factor: int, stride: int) -> bool:
    return all(n % (factor * stride) == 0 and n // factor >= LEAST for n in list_numbers(value))
