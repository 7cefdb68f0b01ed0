"""What was changed, and what an architecture consists of: the feed for mirrors, histories and slots."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from ..dependencies import LibraryName, Name, OpenRegistry
from ..error_responses import NOT_FOUND
from ..schemas_reads import ChangesBody, HistoryBody, LayersBody

router = APIRouter(prefix="/v1")

MAX_CHANGES = 500
MAX_SERIAL = 2**31 - 1
"""What the database's column holds."""

SinceQuery = Annotated[int, Query(ge=0, le=MAX_SERIAL, description="Only what came after this serial", examples=[1])]


@router.get("/changes", summary="Follow the changes", tags=["mirrors"], responses={200: {"model": ChangesBody}})
def list_changes(
    registry: OpenRegistry,
    *,
    since: SinceQuery = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CHANGES, description="Changes at most")] = 100,
) -> JSONResponse:
    """Return the changes after a serial, oldest first: who did what when and why; what tokens are about is withheld."""
    serial = registry.serial()  # first: what is written meanwhile is seen by the next call
    found = registry.list_changes(since, limit + 1)
    page = found[:limit]
    following = page[-1].serial if len(found) > limit else None
    body = {"changes": [change.to_dict() for change in page], "serial": serial, "next": following}
    return JSONResponse(body, headers={"Cache-Control": "no-cache"})


@router.get(
    "/architectures/{library}/{name}/history",
    summary="List every revision",
    tags=["architectures"],
    responses={200: {"model": HistoryBody}, **NOT_FOUND},
)
def list_history(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return every revision ever of an architecture, yanked ones too, each with what was done to it and why."""
    revisions = [revision.to_dict() for revision in registry.list_history(library, name)]
    return JSONResponse({"architecture": {"library": library, "name": name}, "revisions": revisions})


@router.get(
    "/architectures/{library}/{name}/layers",
    summary="List the slots",
    tags=["architectures"],
    responses={200: {"model": LayersBody}, **NOT_FOUND},
)
def list_layers(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return the slots of an architecture: its layers by role, kind and path pattern, with their number."""
    slots = [slot.to_dict() for slot in registry.list_slots(library, name)]
    return JSONResponse({"architecture": {"library": library, "name": name}, "slots": slots})
