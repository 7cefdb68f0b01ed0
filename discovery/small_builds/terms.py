"""What the words of settings mean: ``data/shrink.toml``."""

import re
from functools import cache

from ..facts.data_files import read_facts


@cache
def meaning_of(name: str) -> str:
    """Return what a field is by its name, as in ``data/shrink.toml``; empty if its words mean nothing."""
    found = (meaning for meaning, pattern in _patterns().items() if pattern.fullmatch(name))
    return next(found, "")


def find_limit(reference: str) -> int | None:
    """Return by what the widths of an architecture can be divided at most, if its code has widths of its own."""
    limit: int | None = read_facts("shrink.toml")["architecture"].get(reference, {}).get("most")
    return limit


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    words = read_facts("shrink.toml")["words"]
    return {
        meaning: re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) for meaning, patterns in words.items()
    }
