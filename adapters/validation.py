"""One small check per configuration field; each refusal is one line with the field, the value and the way out."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any

from ..errors import InvalidConfig, nearest, quoted

BIASES = ("none", "all", "lora_only")
INITIALISATIONS = (True, False, "gaussian")
ALL_LINEAR = "all-linear"
"""PEFT's shorthand for every linear layer, resolved by whoever injects; see ``inject``."""


def refusal(field: str, value: object, why: str) -> InvalidConfig:
    """Return the error for one field; the caller raises it."""
    return InvalidConfig(f"{field}={value!r} {why}", field=field, value=repr(value))


def check_known(given: Collection[str], known: Collection[str], owner: str = "LoraConfig") -> None:
    """Refuse field names that a configuration, ``owner``, does not have."""
    for name in given:
        if name not in known:
            near = nearest(name, known, limit=3)
            way_out = f"Closest: {quoted(near)}." if near else f"The fields are: {', '.join(sorted(known))}."
            raise InvalidConfig(f"{owner} has no field {name!r}. {way_out}", field=name)


def rank(field: str, value: object) -> int:
    """Return a rank: a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise refusal(field, value, "is not a rank: give a positive integer such as 8.")
    return value


def positive(field: str, value: object) -> float:
    """Return a finite number above zero, as given (an int stays an int)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise refusal(field, value, "is not usable: give a number above 0, such as 16.")
    return value


def probability(field: str, value: object) -> float:
    """Return a dropout probability, 0 included, 1 excluded: at 1 nothing would ever reach the adapter."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise refusal(field, value, "is no dropout probability: give a number from 0 up to, not including, 1.")
    return value


def flag(field: str, value: object) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise refusal(field, value, "is not a boolean: give True or False.")
    return value


def text(field: str, value: object) -> str | None:
    """Return a string or ``None``."""
    if value is not None and not isinstance(value, str):
        raise refusal(field, value, "is not text: give a string or None.")
    return value


def choice(field: str, value: object, choices: tuple[Any, ...]) -> Any:
    """Return a value that is one of ``choices``."""
    for known in choices:
        if type(value) is type(known) and value == known:
            return known
    raise refusal(field, value, f"is not supported: give one of {', '.join(map(repr, choices))}.")


def initialisation(field: str, value: object) -> bool | str:
    """Return how the factors start; PEFT reads ``Gaussian`` in any case."""
    found: bool | str = choice(field, value.lower() if isinstance(value, str) else value, INITIALISATIONS)
    return found


def task(field: str, value: object, known: Callable[[], Collection[str]]) -> str | None:
    """Return a PEFT task type as text; PEFT's own enum is welcome."""
    name = value.value if isinstance(value, Enum) else value
    if name is None or (isinstance(name, str) and name in known()):
        return name
    raise refusal(field, name, f"is no task type: give None or one of {quoted(known())}.")


def names(field: str, value: object) -> tuple[str, ...] | None:
    """Return a list of names as a tuple; an empty one is ``None``."""
    if isinstance(value, str):
        raise refusal(field, value, f"is a string: give a list, [{value!r}].")
    if value is None:
        return None
    if not isinstance(value, Collection) or not all(isinstance(name, str) and name for name in value):
        raise refusal(field, value, "is not a list of names: give non-empty strings.")
    return tuple(sorted(value) if isinstance(value, set | frozenset) else value) or None


def targets(field: str, value: object) -> tuple[str, ...] | str | None:
    """Return a list of path suffixes as a tuple, or one regex that compiles."""
    if isinstance(value, str):
        return value if value.lower() == ALL_LINEAR else regex(field, value)
    return names(field, value)


def regex(field: str, value: str) -> str:
    """Return a pattern that compiles."""
    try:
        re.compile(value)
    except re.error as error:
        raise refusal(field, value, f"is not a valid regex ({error}): correct it or give a list.") from None
    return value


def patterns(field: str, value: object, check: Any) -> dict[str, Any]:
    """Return a mapping from regexes to values that each pass ``check``."""
    if not isinstance(value, Mapping) or not all(isinstance(pattern, str) for pattern in value):
        raise refusal(field, value, "is not a mapping: give {pattern: value}.")
    return {regex(field, pattern): check(f"{field}[{pattern!r}]", each) for pattern, each in value.items()}


def indices(field: str, value: object) -> tuple[int, ...] | int | None:
    """Return a block index or a list of them; an empty list is ``None``."""
    if value is None:
        return None
    many = [value] if isinstance(value, int) else value
    if not isinstance(many, Collection) or not all(type(each) is int and each >= 0 for each in many):
        raise refusal(field, value, "is no list of block indices: give integers from 0.")
    return value if isinstance(value, int) else tuple(many) or None
