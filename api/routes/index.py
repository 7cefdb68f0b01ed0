"""``GET /``: where things are."""

from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from ...schema import Config, schema_config, to_json

router = APIRouter(tags=["operations"])


@dataclass(frozen=True, slots=True)
class Index:
    """The name and version of the service, and the paths of its resources."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (Index("loradar", "0.1.0", {"openapi": "/openapi.json"}),)
    )

    name: str
    version: str
    links: dict[str, str]


LINKS = {
    "targets": "/v1/targets/{model_type}",
    "architectures": "/v1/architectures",
    "architecture": "/v1/architectures/{library}/{name}",
    "similar": "/v1/architectures/{library}/{name}/similar",
    "layers": "/v1/architectures/{library}/{name}/layers",
    "history": "/v1/architectures/{library}/{name}/history",
    "batch": "/v1/targets:batch",
    "mappings": "/v1/mappings",
    "mapping": "/v1/mappings/{mapping_id}",
    "diff": "/v1/mappings/{mapping_id}/diff",
    "changes": "/v1/changes",
    "snapshot": "/v1/snapshot",
    "key": "/v1/snapshot/key",
    "submissions": "/v1/submissions",
    "submission": "/v1/submissions/{submission_id}",
    "reviews": "/v1/submissions/{submission_id}/reviews",
    "withdrawal": "/v1/submissions/{submission_id}/withdrawal",
    "yank": "/v1/mappings/{mapping_id}/yank",
    "restoration": "/v1/mappings/{mapping_id}/restoration",
    "scan": "/v1/scan",
    "tokens": "/v1/tokens",
    "me": "/v1/tokens/me",
    "revocation": "/v1/tokens/{token_id}/revocation",
    "metrics": "/metrics",
    "constants": "/v1/export/constants.py",
    "openapi": "/openapi.json",
    "health": "/healthz",
    "ready": "/readyz",
}


@router.get("/", summary="List the ways in", responses={200: {"model": Index}})
def get_index(request: Request) -> JSONResponse:
    """List the ways into the service."""
    return JSONResponse(to_json(Index("loradar", request.app.version, LINKS)))
