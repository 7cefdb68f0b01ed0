"""``GET /``: where things are."""

from typing import Any

from fastapi import APIRouter, Request

from ..schemas import IndexBody

router = APIRouter(tags=["operations"])

LINKS = {
    "targets": "/v1/targets/{model_type}",
    "architectures": "/v1/architectures",
    "architecture": "/v1/architectures/{library}/{name}",
    "similar": "/v1/architectures/{library}/{name}/similar",
    "constants": "/v1/export/constants.py",
    "openapi": "/openapi.json",
    "health": "/healthz",
    "ready": "/readyz",
}


@router.get("/", response_model=IndexBody)
def get_index(request: Request) -> dict[str, Any]:
    """List the ways into the service."""
    return {"name": "loradar", "version": request.app.version, "links": LINKS}
