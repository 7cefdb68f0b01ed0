"""Raise the errors of a service, or of a worker, as the classes they are of."""

from collections.abc import Mapping
from typing import Any

from .errors import LoradarError, UnknownName


def to_error(body: Mapping[str, Any]) -> LoradarError:
    """Return the error in a response body, as the class with its code."""
    code, message, details = (body["error"][field] for field in ("code", "message", "details"))
    kinds = [LoradarError]
    kinds.extend(below for kind in kinds for below in kind.__subclasses__())  # it grows: each brings its subclasses
    kind = next((kind for kind in kinds if kind.code == code), LoradarError)
    error = kind.__new__(kind, message)  # its own __init__ would compose the message again
    error.message, error.details = str(message), dict(details)
    if isinstance(error, UnknownName):
        error.name, error.near = details["name"], details["near"]
    return error
