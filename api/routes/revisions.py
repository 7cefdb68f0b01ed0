"""``/v1/mappings/{mapping_id}/yank`` and ``/restoration``: take a revision out of use, and into use again."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from ...domain.changes import Revision
from ...schema import to_json
from ..authentication import Reviewer
from ..conditional_requests import TAGGED, Version, WriteKey, version_tag
from ..dependencies import OpenRegistry
from ..error_responses import WRITES, error_responses
from ..json_bodies import StrictRoute
from ..requests import ReasonRequest
from .mappings import MappingId

router = APIRouter(prefix="/v1/mappings", tags=["mappings"], route_class=StrictRoute)


def _response(revision: Revision) -> JSONResponse:
    headers = {"ETag": version_tag(revision.version), "Cache-Control": "no-store"}
    return JSONResponse(to_json(revision), HTTPStatus.OK, headers)


def _documented(description: str) -> dict[int | str, dict[str, Any]]:
    success = {"model": Revision, "description": description, **TAGGED}
    return {200: success, **WRITES, **error_responses(404, 409, 412)}


@router.post("/{mapping_id}/yank", summary="Yank a revision", responses=_documented("The revision, out of use"))
def yank_mapping(  # noqa: PLR0913, PLR0917 - a decision and its basis
    registry: OpenRegistry, by: Reviewer, mapping_id: MappingId, version: Version, key: WriteKey, body: ReasonRequest
) -> JSONResponse:
    """Take a revision out of use, so that lookups ignore it. For reviewers."""
    return _response(registry.backend(by).yank(mapping_id, body.reason, version=version, key=key))


@router.post("/{mapping_id}/restoration", summary="Restore a revision", responses=_documented("The revision, in use"))
def restore_mapping(  # noqa: PLR0913, PLR0917 - as above
    registry: OpenRegistry, by: Reviewer, mapping_id: MappingId, version: Version, key: WriteKey, body: ReasonRequest
) -> JSONResponse:
    """Take a yanked revision into use again. For reviewers."""
    return _response(registry.backend(by).restore(mapping_id, body.reason, version=version, key=key))
