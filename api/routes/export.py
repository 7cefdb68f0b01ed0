"""``/v1/export``: the registry as a Python file with PEFT's table names."""

from threading import Lock
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ...registry import Registry, State, constants_python
from ..dependencies import OpenRegistry, cached

router = APIRouter(prefix="/v1/export", tags=["export"])

MEDIA_TYPE = "text/x-python; charset=utf-8"
EXAMPLE = 'TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {\n    "olmo2": ["q_proj", "v_proj"],\n}\n'

OnlyQuery = Annotated[
    Literal["ours"] | None, Query(description="`ours` leaves the entries of PEFT's own tables out", examples=["ours"])
]


class Exports:
    """Keep the last file of each kind until the registry changes: each takes two seconds to make."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[bool, tuple[State, bytes]] = {}

    def python(self, registry: Registry, *, only_ours: bool) -> bytes:
        """Return the registry's mappings as a Python file; concurrent requests wait for the same one."""
        with self._lock:
            state = registry.state()
            kept = self._kept.get(only_ours)
            if kept is None or kept[0] != state:
                source = constants_python(registry.list_mappings("transformers"), only_ours=only_ours)
                kept = self._kept[only_ours] = (state, source.encode())
            return kept[1]


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
