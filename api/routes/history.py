"""``/v1/changes`` and an architecture's ``/history`` and ``/layers``: the change feed, revisions and slots."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from ...domain.architectures import ArchitectureName
from ...domain.changes import ArchitectureHistory, ChangePage
from ...domain.mappings import ArchitectureSlots
from ...schema import to_json
from ..dependencies import LibraryName, Name, OpenRegistry
from ..errors import NOT_FOUND

router = APIRouter(prefix="/v1")

MAX_CHANGES = 500
MAX_SERIAL = 2**31 - 1
"""Largest value of the database's column."""

SinceQuery = Annotated[int, Query(ge=0, le=MAX_SERIAL, description="Only changes after this serial", examples=[1])]


@router.get("/changes", summary="Follow the changes", tags=["mirrors"], responses={200: {"model": ChangePage}})
def list_changes(
    registry: OpenRegistry,
    *,
    since: SinceQuery = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CHANGES, description="Changes at most")] = 100,
) -> JSONResponse:
    """Return the changes after a serial, oldest first: actor, time and reason; changes of tokens lack details."""
    serial = registry.serial()  # read first: later writes appear in the next call
    found = registry.list_changes(since, limit + 1)
    page = found[:limit]
    following = page[-1].serial if len(found) > limit else None
    return JSONResponse(to_json(ChangePage(page, serial, following)), headers={"Cache-Control": "no-cache"})


@router.get(
    "/architectures/{library}/{name}/history",
    summary="List every revision",
    tags=["architectures"],
    responses={200: {"model": ArchitectureHistory}, **NOT_FOUND},
)
def list_history(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return every revision ever of an architecture, yanked ones too, each with its changes."""
    revisions = registry.list_history(library, name)
    return JSONResponse(to_json(ArchitectureHistory(ArchitectureName(library, name), revisions)))


@router.get(
    "/architectures/{library}/{name}/layers",
    summary="List the slots",
    tags=["architectures"],
    responses={200: {"model": ArchitectureSlots}, **NOT_FOUND},
)
def list_layers(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return the slots of an architecture: its layers by role, kind and path pattern, with their count."""
    slots = registry.list_slots(library, name)
    return JSONResponse(to_json(ArchitectureSlots(ArchitectureName(library, name), slots)))
