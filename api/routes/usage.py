"""``/v1/usage``: count the repos of hubs that use an architecture, as crawls have found them."""

from fastapi import APIRouter
from starlette.responses import JSONResponse

from ...domain.crawls.usage import Usage
from ...schema import to_json
from ..dependencies import LibraryName, Name, OpenRegistry
from ..errors import NOT_FOUND

router = APIRouter(prefix="/v1", tags=["architectures"])


@router.get(
    "/usage/{library}/{name}",
    summary="Count the repos that use an architecture",
    responses={200: {"model": Usage}, **NOT_FOUND},
)
def get_usage(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return the repos that store a model of an architecture, by structure, and the targets of their adapters."""
    return JSONResponse(to_json(registry.crawls.get_usage(library, name)), headers={"Cache-Control": "no-cache"})
