"""Find the known names that somebody may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """Return up to ``limit`` known names similar to ``name``, nearest first, ignoring case."""
    folded = {candidate.casefold(): candidate for candidate in sorted(known)}
    return [folded[match] for match in get_close_matches(name.casefold(), folded, n=limit, cutoff=0.6)]
