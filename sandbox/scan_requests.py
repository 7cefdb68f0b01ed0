"""The scan of what a request sends, from its bytes to the bytes of the answer: all of it in the worker.

A list of 100,000 layers takes a second to read and to write; the service answers others meanwhile.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter, ValidationError

from ..domain.schema import dump_json
from ..domain.vocabulary import Library
from ..errors import InvalidRequest
from ..validation.bodies import describe_problem, parse_json
from ..validation.statements import STRICT, LayersField, NameField
from .statement_checks import scan_sent

REFERENCE_LENGTH = 300
MOST_FAULTS = 20


class ConfigScan(BaseModel):
    """A transformers ``config.json``: its ``model_type`` has to be one that transformers itself knows."""

    model_config = STRICT

    config: dict[str, Any] = Field(
        description="What the file holds; code it names is never loaded", examples=[{"model_type": "olmo2"}]
    )


class LayersScan(BaseModel):
    """A list of layers, as a file's header tells them: names and shapes are all that speaks."""

    model_config = STRICT

    layers: LayersField
    library: Library = Field("torch", description="Library the architecture belongs to")
    name: NameField = Field("unnamed", description="What to call the architecture")


class ReferenceScan(BaseModel):
    """An architecture by its name, or a repo's ``config.json`` on the hub."""

    model_config = STRICT

    reference: Annotated[str, Field(min_length=1, max_length=REFERENCE_LENGTH, pattern=r"^[!-~]+$")] = Field(
        description="`transformers:NAME`, `timm:NAME`, `diffusers:NAME` or `hub:org/repo[@revision]`",
        examples=["transformers:olmo2"],
    )


def _form(body: Any) -> str:
    """Tell which of the three is meant, so that what is wrong is told of that one."""
    named = body if isinstance(body, Mapping) else {}
    return next((field for field in ("layers", "reference") if field in named), "config")


ScanRequest = Annotated[
    Annotated[ConfigScan, Tag("config")]
    | Annotated[LayersScan, Tag("layers")]
    | Annotated[ReferenceScan, Tag("reference")],
    Discriminator(_form),
]
"""What may be scanned: one of the three."""


def answer_scan(body: bytes) -> bytes:
    """Return the JSON of ``loradar scan --json`` for the body of ``POST /v1/scan``.

    Raises:
        InvalidRequest: If the body is no JSON, or no question.
        LoradarError: If what it asks for cannot be scanned.
    """
    asked = _parse(parse_json(body))
    return dump_json(scan_sent(asked.model_dump(by_alias=True)))


def _parse(data: Any) -> BaseModel:
    try:
        asked: BaseModel = TypeAdapter(ScanRequest).validate_python(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_FAULTS]
        # The first part of a place is the form that was taken for meant, which no sender knows of.
        fields = [{"field": ".".join(map(str, ("body", *f["loc"][1:]))), "problem": describe_problem(f)} for f in found]
        said = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
        message = f"The request has a bad field: {said}. Send 'config', 'layers' or 'reference'. See /openapi.json."
        raise InvalidRequest(message, fields=fields) from error
    return asked
