"""Validate the bodies of requests that are parsed outside of the framework: scans and adapters."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import InvalidRequest
from .statements import STRICT
from .text import describe_problem, parse_json

MOST_FAULTS = 20
MODEL_LENGTH = 300


class AdapterBody(BaseModel):
    """A saved adapter: its configuration, and the header of its weights or the whole file."""

    model_config = STRICT | ConfigDict(title="Adapter")

    config: dict[str, Any] = Field({}, description="The content of `adapter_config.json`")
    header: dict[str, Any] | None = Field(
        None, description="The JSON at the start of `adapter_model.safetensors`: names, types, shapes and offsets"
    )
    file: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9+/]+={0,2}$")] | None = Field(
        None, description="The whole file in Base64, in place of the header: values are examined too"
    )
    model: Annotated[str, Field(min_length=1, max_length=MODEL_LENGTH, pattern=r"^[!-~]+$")] | dict[str, Any] | None = (
        Field(
            None,
            description="The base model: an architecture or a known checkpoint, `hub:org/repo[@revision]`, or the "
            "content of its `config.json`; by default the one that `config` names",
        )
    )


def parse_body(form: Any, body: bytes, way_out: str, *, is_tagged: bool = False) -> BaseModel:
    """Return the body of a request in a form.

    Args:
        form: The type of the form.
        body: The JSON.
        way_out: What to send instead, for errors.
        is_tagged: Whether the form is one of several, whose name the sender never wrote.

    Raises:
        InvalidRequest: If it is not JSON, or not of the form; names the fields.
    """
    try:
        found: BaseModel = TypeAdapter(form).validate_python(parse_json(body))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_FAULTS]
        fields = [_describe(fault, int(is_tagged)) for fault in faults]
        problems = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
        message = f"The request has a bad field: {problems}. {way_out} See /openapi.json."
        raise InvalidRequest(message, fields=fields) from error
    return found


def _describe(fault: Mapping[str, Any], start: int) -> dict[str, str]:
    path = ".".join(map(str, ("body", *fault["loc"][start:])))
    return {"field": path[:200], "problem": describe_problem(fault)}
