"""``GET /v1/targets/{model_type}``: the recommended mapping."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ...domain.mappings import Mapping
from ...schema import to_json
from ..conditional_requests import cached_json
from ..dependencies import LibraryQuery, Name, OpenRegistry, VersionQuery
from ..error_responses import NOT_FOUND

router = APIRouter(prefix="/v1", tags=["targets"])

PeftTypeQuery = Annotated[
    str, Query(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="PEFT's name of the method", examples=["LORA"])
]
PresetQuery = Annotated[
    str,
    Query(
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=32,
        description="`default`, `attention`, `mlp`, `all-linear` or `experts`",
        examples=["default"],
    ),
]


@router.get(
    "/targets/{model_type}",
    summary="Look up targets",
    responses={
        200: {"model": Mapping, "description": "The mapping to use"},
        304: {"description": "The client has it already: `If-None-Match` names its `ETag`"},
        **NOT_FOUND,
    },
)
def get_targets(  # noqa: PLR0913 - the query's fields
    request: Request,
    registry: OpenRegistry,
    model_type: Name,
    *,
    peft_type: PeftTypeQuery = "LORA",
    preset: PresetQuery = "default",
    library: LibraryQuery = "transformers",
    library_version: VersionQuery = None,
) -> Response:
    """Return the mapping to use for an architecture: target spec, source, revision and verification."""
    mapping = registry.lookup(model_type, peft_type, preset, library, library_version)
    return cached_json(request, to_json(mapping))
