"""Find the names nearest to a mistyped one."""

from collections.abc import Iterable
from itertools import takewhile

_DOUBLED = 0.4
"""The cost of a letter typed twice, or once instead: the commonest slip."""
_SWAPPED = 0.7
_ENDED = 0.5
"""The cost of a missing last letter."""
_FEWEST = 3
"""Letters of a name that can be mistyped: any shorter one is near to many."""
_ALIKE = frozenset(["o0", "l1", "i1"])
"""Letters that look like a digit."""
_DIGIT = 2.0
"""The cost of another digit, which is another model more often than a slip."""


def list_near(key: str, known: Iterable[str], limit: int = 8) -> list[tuple[float, str]]:
    """Return the known keys within a few slips of a key, with their distances, nearest first.

    Of equal ones, those that begin alike come first: few slips are at the beginning of a name.
    """
    if len(key) < _FEWEST:
        return []
    most = 1.0 if len(key) < 5 else 1.5 if len(key) < 8 else 2.0 if len(key) < 14 else 3.0  # noqa: PLR2004 - letters
    reach, letters, found = int(most / _DOUBLED) if len(key) > 3 else 1, set(key), []  # noqa: PLR2004
    for name in known:
        if abs(len(name) - len(key)) <= reach and len(letters ^ set(name)) <= 2 * most:
            distance = distance_between(key, name)
            if distance <= most:
                found.append((distance, name))
    return sorted(found, key=lambda one: (one[0], -count_alike(key, one[1]), len(one[1]), one[1]))[:limit]


def count_alike(one: str, other: str) -> int:
    """Return the number of letters that two names begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def distance_between(typed: str, name: str) -> float:
    """Return the cost of the slips that make one key of another: letters left out, added, changed or swapped."""
    before: list[float] = []
    last = [0.0]
    for column, letter in enumerate(name):
        last.append(last[-1] + _skip_cost(name, column, letter))
    for row, letter in enumerate(typed, 1):
        line = [last[0] + _skip_cost(typed, row - 1, letter)]
        for column, wanted in enumerate(name, 1):
            cost = last[column - 1] + _change_cost(letter, wanted)
            cost = min(cost, last[column] + _skip_cost(typed, row - 1, letter))
            cost = min(cost, line[column - 1] + _skip_cost(name, column - 1, wanted))
            if row > 1 < column and letter == name[column - 2] != wanted == typed[row - 2]:
                cost = min(cost, before[column - 2] + _SWAPPED)
            line.append(cost)
        before, last = last, line
    return last[-1]


def _skip_cost(text: str, index: int, letter: str) -> float:
    if letter.isdigit():
        return _DIGIT if index + 1 < len(text) else 1.0
    if index and text[index - 1] == letter:
        return _DOUBLED
    return _ENDED if index and index + 1 == len(text) else 1.0


def _change_cost(letter: str, wanted: str) -> float:
    if letter == wanted:
        return 0.0
    if "".join(sorted((letter, wanted), reverse=True)) in _ALIKE:
        return _SWAPPED
    return _DIGIT if letter.isdigit() or wanted.isdigit() else 1.0
