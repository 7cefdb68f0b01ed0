"""``/v1/search``: find architectures by typed or pasted text."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from ...domain.architectures import SearchAnswer
from ...schema import to_json
from ..dependencies import OpenRegistry, cached

router = APIRouter(prefix="/v1", tags=["architectures"])

LONGEST_QUERY = 4_000
MOST_RESULTS = 100

SearchQuery = Annotated[
    str,
    Query(
        max_length=LONGEST_QUERY,
        description="A name in any spelling, a layer's name (`Wqkv`), or a message of an error with its traceback",
        examples=["Qwen/Qwen3-8B"],
    ),
]


@router.get("/search", summary="Search architectures", responses={200: {"model": SearchAnswer}})
def search(
    request: Request,
    registry: OpenRegistry,
    *,
    q: SearchQuery = "",
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS, description="Results at most")] = 20,
) -> Response:
    """Return the architectures that a text may mean, best first, each with the reason; guesses are marked."""
    return cached(request, JSONResponse(to_json(registry.browsing.search(q, limit))))
