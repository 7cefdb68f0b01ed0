"""``/healthz`` and ``/readyz``: does the process run, does the database answer?"""

from typing import Any

from fastapi import APIRouter, Request

from ..deps import OpenRegistry
from ..schemas import HealthBody, ReadyBody

router = APIRouter(tags=["operations"])


@router.get("/healthz", response_model=HealthBody)
def get_health(request: Request) -> dict[str, Any]:
    """Say that the process runs, whatever the state of the database."""
    return {"status": "ok", "version": request.app.version}


@router.get("/readyz", response_model=ReadyBody)
def get_readiness(registry: OpenRegistry) -> dict[str, Any]:
    """Say that the registry can be read; 503 with the cause if not."""
    return {"status": "ready", "serial": registry.serial()}
