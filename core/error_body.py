"""The one JSON shape of every error."""

from dataclasses import dataclass
from typing import Any, ClassVar

from .schema import Config, schema_config


@dataclass(frozen=True, slots=True)
class ErrorContent:
    """A code for programs, a sentence for people, and the values behind it."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    code: str
    message: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The one JSON shape of every error."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (ERROR_EXAMPLE,))

    error: ErrorContent


_EXAMPLE = "Nothing is registered for transformers:olmo2. Scan it with: loradar scan olmo2 --store."
_DETAILS = {"name": "olmo2", "near": [], "library": "transformers"}
ERROR_EXAMPLE: ErrorBody = ErrorBody(ErrorContent("not_registered", _EXAMPLE, _DETAILS))
