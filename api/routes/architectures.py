"""``/v1/architectures``: list architectures, get one, and list those similar to it."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from ...domain.mappings import ArchitectureDetail, ArchitecturePage, NeighbourList
from ...domain.vocabulary import Library
from ...schema import to_json
from ..dependencies import NAME_LENGTH, PLACE_PATTERN, LibraryName, Name, OpenRegistry
from ..errors import NOT_FOUND

router = APIRouter(prefix="/v1", tags=["architectures"])

MAX_PAGE = 200
MAX_SIMILAR = 50

PartQuery = Annotated[
    str,
    Query(max_length=NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", description="Part of the name, in any case"),
]
AfterQuery = Annotated[
    str | None,
    Query(
        max_length=NAME_LENGTH + len("transformers:"),
        pattern=PLACE_PATTERN + "$",
        description="`next` of the page before",
        examples=["transformers:llama"],
    ),
]


@router.get("/architectures", summary="List architectures", responses={200: {"model": ArchitecturePage}})
def list_architectures(
    registry: OpenRegistry,
    *,
    library: Annotated[Library | None, Query(description="Only those of this library")] = None,
    q: PartQuery = "",
    after: AfterQuery = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Architectures per page")] = 50,
) -> JSONResponse:
    """Return a page of architectures, sorted by library and name."""
    after_library, _, after_name = (after or "").partition(":")
    found = registry.list_architectures(library, q, (after_library, after_name) if after else None, limit + 1)
    page = found[:limit]
    last = page[-1].architecture.reference if len(found) > limit else None
    return JSONResponse(to_json(ArchitecturePage(page, last)))


@router.get(
    "/architectures/{library}/{name}",
    summary="Get an architecture",
    responses={200: {"model": ArchitectureDetail}, **NOT_FOUND},
)
def get_architecture(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return everything registered for an architecture: slots, towers, mappings and their revisions."""
    return JSONResponse(to_json(registry.get_architecture(library, name)))


@router.get(
    "/architectures/{library}/{name}/similar",
    summary="List similar architectures",
    responses={200: {"model": NeighbourList}, **NOT_FOUND},
)
def list_similar(
    registry: OpenRegistry,
    library: LibraryName,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=MAX_SIMILAR, description="Architectures at most")] = 10,
) -> JSONResponse:
    """Return the nearest architectures by their slots, with the differences in words."""
    return JSONResponse(to_json(NeighbourList(registry.list_similar(library, name, limit))))
