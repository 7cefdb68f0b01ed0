"""What a validator found, in words: what is wrong with a field, and with which value."""

from collections.abc import Mapping
from typing import Any

from .text import shorten

_SAID = {"extra_forbidden": "There is no such field", "missing": "It is missing"}
_OURS = ("refused", "value_error")
"""Kinds of fault that our own checks find: their words name the value, where it can be shown."""


def fault_in_words(fault: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong with a field, as a sentence without its full stop.

    Args:
        fault: One of ``ValidationError.errors()``.
    """
    kind, said, value = fault["type"], fault["msg"].removeprefix("Value error, ").rstrip("."), fault.get("input")
    if kind in _SAID:
        return _SAID[kind]
    if kind in _OURS or not isinstance(value, str | int | float):
        return str(said)
    return f"{said}, not {shorten(str(value))}"
