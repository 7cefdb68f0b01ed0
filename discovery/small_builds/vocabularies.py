"""Small vocabularies: the long stretches of tokens that no setting names are left out."""

from collections.abc import Iterable
from typing import Any

from .config_tree import Path, Section, each_number, list_numbers
from .terms import meaning_of

STRETCH = 512
"""Tokens kept between two that settings name."""


def fewer_tokens(sections: Iterable[Section]) -> dict[Path, Any]:
    """Return what to change so that vocabularies are short, and the tokens settings name are still in theirs."""
    named = [
        ((*section.path, name), value)
        for section in sections
        for name, value in section.fields.items()
        if meaning_of(name) in ("vocabulary", "token")
    ]
    places = _shortened({number for _, value in named for number in list_numbers(value)})
    return {path: each_number(value, lambda number: places.get(number, number)) for path, value in named if value}


def _shortened(numbers: set[int]) -> dict[int, int]:
    """Return new numbers in the same order, as far apart as before but by no more than a stretch."""
    places: dict[int, int] = {}
    last = at = 0
    for number in sorted(number for number in numbers if number > 0):
        at += min(number - last, STRETCH)
        places[number], last = at, number
    return places
