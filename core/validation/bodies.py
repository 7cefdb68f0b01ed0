"""Parse the JSON of requests strictly, and describe problems that pydantic reports."""

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest
from ..extras import require
from .text import shorten

REJECTED = "rejected"
"""Type of the problems that loradar's own validators report; their messages show the value where it is safe."""

_MESSAGES = {"extra_forbidden": "There is no such field", "missing": "It is missing"}


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8 without repeated names, ``NaN`` or deep nesting.

    Raises:
        InvalidRequest: Naming the position and the problem.
        MissingExtra: If the ``server`` extra is not installed.
    """
    require("server", "jiter")
    from jiter import from_json  # noqa: PLC0415 - an extra

    try:
        # No cache: text of clients would stay in memory.
        return from_json(data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError as error:
        message = f"The body is no JSON this service reads: {error}. Send one JSON value in UTF-8."
        raise InvalidRequest(message, field="body", problem=str(error)) from error


def describe_problem(problem: Mapping[str, Any]) -> str:
    """Return an item of ``ValidationError.errors()`` as a sentence without its full stop."""
    kind, message, value = (
        problem["type"],
        problem["msg"].removeprefix("Value error, ").rstrip("."),
        problem.get("input"),
    )
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if kind in {REJECTED, "value_error"} or not isinstance(value, str | int | float):
        return str(message)
    return f"{message}, not {shorten(str(value))}"
