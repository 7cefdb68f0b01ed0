"""``/v1/export``: the registry's answers in the form others read."""

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ..caching import cached
from ..dependencies import OpenRegistry

if TYPE_CHECKING:
    from ..exported_files import Exports

router = APIRouter(prefix="/v1/export", tags=["export"])

MEDIA_TYPE = "text/x-python; charset=utf-8"
EXAMPLE = 'TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {\n    "olmo2": ["q_proj", "v_proj"],\n}\n'

OnlyQuery = Annotated[
    Literal["ours"] | None, Query(description="`ours` leaves the entries of PEFT's own tables out", examples=["ours"])
]


@router.get(
    "/constants.py",
    summary="Export PEFT's constants",
    response_class=Response,
    responses={
        200: {
            "description": "A Python module with PEFT's table names, importable without PEFT",
            "content": {"text/x-python": {"schema": {"type": "string"}, "example": EXAMPLE}},
        },
        304: {"description": "The client has it already: `If-None-Match` names its `ETag`"},
    },
)
def get_constants(request: Request, registry: OpenRegistry, *, only: OnlyQuery = None) -> Response:
    """Return PEFT's target tables with the proved entries they lack, as a Python file."""
    exports: Exports = request.app.state.exports
    source = exports.python(registry, only_ours=only == "ours")
    return cached(request, Response(source, media_type=MEDIA_TYPE))
