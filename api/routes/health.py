"""``/healthz`` and ``/readyz``: does the process run, does the database answer?"""

from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from ...schema import Config, schema_config, to_json
from ..dependencies import OpenRegistry

router = APIRouter(tags=["operations"])


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the process."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (Health("ok", "0.1.0"),))

    status: str
    version: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of the registry."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (Readiness("ready", 1, "running"),))

    status: str
    serial: int
    checks: str
    """`running`, or the reason why submissions wait for their checks."""


@router.get("/healthz", summary="Is the process alive?", responses={200: {"model": Health}})
async def get_health(request: Request) -> JSONResponse:
    """Say that the process runs, whatever the state of the database."""
    # No thread of the pool is taken for it: all may be waiting for the database.
    return JSONResponse(to_json(Health("ok", request.app.version)))


@router.get("/readyz", summary="Does the registry answer?", responses={200: {"model": Readiness}})
def get_readiness(request: Request, registry: OpenRegistry) -> JSONResponse:
    """Say that the registry can be read, and whether submissions are checked here; 503 if not."""
    missing = request.app.state.workers.missing
    checks = f"waiting: {missing.message}" if missing else "running"
    return JSONResponse(to_json(Readiness("ready", registry.serial(), checks)))
