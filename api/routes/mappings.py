"""``/v1/mappings``: list the mappings in use; get, yank and restore a revision; compare two."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import JSONResponse

from ...domain.changes import Revision
from ...domain.mappings import MAPPING_EXAMPLE, PLACE_EXAMPLE, MappingPage
from ...domain.submissions import Difference
from ...domain.vocabulary import Library, SourceKind, Status
from ...registry import mapping_place
from ...schema import to_json
from ..dependencies import (
    NAME_LENGTH,
    PLACE_PATTERN,
    TAGGED,
    OpenRegistry,
    Reviewer,
    Version,
    WriteKey,
    version_tag,
    versioned,
)
from ..errors import NOT_FOUND, WRITES, error_responses
from ..requests import ReasonRequest, StrictRoute
from .architectures import NameQuery

router = APIRouter(prefix="/v1/mappings", tags=["mappings"])
writes = APIRouter(prefix="/v1/mappings", tags=["mappings"], route_class=StrictRoute)

MAX_PAGE = 200
ID_PATTERN = r"^(sha256:)?[0-9a-f]{8,64}$"

_ID_EXAMPLES = [MAPPING_EXAMPLE.id]

MappingId = Annotated[
    str,
    Path(pattern=ID_PATTERN, description="Id of the revision, or its first eight digits", examples=_ID_EXAMPLES),
]
OtherId = Annotated[
    str,
    Query(
        pattern=ID_PATTERN,
        description="Id of the mapping to compare with, or its first eight digits",
        examples=_ID_EXAMPLES,
    ),
]
PlaceQuery = Annotated[
    str | None,
    Query(
        max_length=2 * NAME_LENGTH,
        pattern=PLACE_PATTERN + r"/[A-Za-z0-9_]+/[A-Za-z0-9_-]+/(community|peft|scanner)/[0-9]{1,9}$",
        description="`next` of the page before",
        examples=[PLACE_EXAMPLE],
    ),
]


@router.get("", summary="List mappings", responses={200: {"model": MappingPage}})
def list_mappings(  # noqa: PLR0913 - the filters
    registry: OpenRegistry,
    *,
    source: Annotated[SourceKind | None, Query(description="Only those of this kind of source")] = None,
    peft_type: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="Only those for this PEFT method")
    ] = None,
    status: Annotated[Status | None, Query(description="Only those whose newest verification has this status")] = None,
    library: Annotated[Library | None, Query(description="Only those of this library")] = None,
    q: NameQuery = "",
    after: PlaceQuery = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Mappings per page")] = 50,
) -> JSONResponse:
    """Return a page of the mappings in use, sorted by architecture, PEFT type, preset, source and revision."""
    found = registry.find_mappings(source, peft_type, status, q, library, after, limit + 1)
    page = found[:limit]
    last = mapping_place(page[-1]) if len(found) > limit else None
    return JSONResponse(to_json(MappingPage(page, last)))


@router.get(
    "/{mapping_id}",
    summary="Get a revision",
    responses={
        200: {
            "model": Revision,
            "headers": {"ETag": {"description": "The version, for `If-Match`", "schema": {"type": "string"}}},
        },
        **NOT_FOUND,
    },
)
def get_mapping(registry: OpenRegistry, mapping_id: MappingId) -> JSONResponse:
    """Return a revision, in use or yanked, with its changes: actor, time and reason."""
    revision = registry.get_revision(mapping_id)
    # A new verification changes the body but not the version: the tag is for writes, and never gives a 304.
    headers = {"ETag": version_tag(revision.version), "Cache-Control": "no-cache"}
    return JSONResponse(to_json(revision), headers=headers)


@router.get(
    "/{mapping_id}/diff",
    summary="Compare two mappings",
    responses={200: {"model": Difference}, **NOT_FOUND},
)
def compare_mappings(registry: OpenRegistry, mapping_id: MappingId, against: OtherId) -> JSONResponse:
    """Return the layers that only one of two mappings of an architecture matches."""
    return JSONResponse(to_json(registry.compare(mapping_id, against)))


def _documented(description: str) -> dict[int | str, dict[str, Any]]:
    success = {"model": Revision, "description": description, **TAGGED}
    return {200: success, **WRITES, **error_responses(404, 409, 412)}


@writes.post("/{mapping_id}/yank", summary="Yank a revision", responses=_documented("The revision, out of use"))
def yank_mapping(  # noqa: PLR0913, PLR0917 - a decision and its basis
    registry: OpenRegistry, by: Reviewer, mapping_id: MappingId, version: Version, key: WriteKey, body: ReasonRequest
) -> JSONResponse:
    """Take a revision out of use, so that lookups ignore it. For reviewers."""
    return versioned(registry.backend(by).yank(mapping_id, body.reason, version=version, key=key))


@writes.post("/{mapping_id}/restoration", summary="Restore a revision", responses=_documented("The revision, in use"))
def restore_mapping(  # noqa: PLR0913, PLR0917 - as above
    registry: OpenRegistry, by: Reviewer, mapping_id: MappingId, version: Version, key: WriteKey, body: ReasonRequest
) -> JSONResponse:
    """Take a yanked revision into use again. For reviewers."""
    return versioned(registry.backend(by).restore(mapping_id, body.reason, version=version, key=key))
