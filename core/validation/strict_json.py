"""JSON that means one thing: no name twice in an object, no ``NaN``, no nesting without end, and all of it UTF-8."""

from typing import Any

from ..errors import InvalidRequest
from ..extras import require


def parse_json(data: bytes) -> Any:
    """Return what a JSON text from somewhere else says.

    Raises:
        InvalidRequest: Naming the place and what is wrong there.
        MissingExtra: If the ``server`` extra is not installed.
    """
    require("server", "jiter")
    from jiter import from_json  # noqa: PLC0415 - an extra

    try:
        # Nothing is cached: what anybody sends would stay in memory.
        return from_json(data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError as error:
        message = f"The body is no JSON this service reads: {error}. Send one JSON value in UTF-8."
        raise InvalidRequest(message, field="body", problem=str(error)) from error
