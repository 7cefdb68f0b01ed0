"""``/healthz`` and ``/readyz``: does the process run, does the database answer?"""

from typing import Any

from fastapi import APIRouter, Request

from ..dependencies import OpenRegistry
from ..schemas import HealthBody, ReadyBody

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Is the process alive?", response_model=HealthBody)
async def get_health(request: Request) -> dict[str, Any]:
    """Say that the process runs, whatever the state of the database."""
    # No thread of the pool is taken for it: all may be waiting for the database.
    return {"status": "ok", "version": request.app.version}


@router.get("/readyz", summary="Does the registry answer?", response_model=ReadyBody)
def get_readiness(request: Request, registry: OpenRegistry) -> dict[str, Any]:
    """Say that the registry can be read, and whether submissions are checked here; 503 if not."""
    missing = request.app.state.workers.missing
    checks = f"waiting: {missing.message}" if missing else "running"
    return {"status": "ready", "serial": registry.serial(), "checks": checks}
