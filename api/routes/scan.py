"""``POST /v1/scan``: propose targets for an architecture that is not registered."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from ...domain.scans import Scan
from ..errors import error_responses
from ..requests import JSON, require_json

if TYPE_CHECKING:
    from ..workers import Workers

router = APIRouter(prefix="/v1", tags=["scan"])

SCAN = "loradar.sandbox.tasks:scan_request"
"""Named, not imported: it imports torch, in the worker."""


@router.post(
    "/scan",
    summary="Scan an architecture",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/ScanRequest"}}},
        }
    },
    responses={
        200: {"model": Scan, "description": "What `loradar scan --json` prints"},
        **error_responses(400, 404, 413, 415, 501, 502),
    },
)
async def scan(request: Request) -> Response:
    """Propose targets for a `config.json`, a list of layers, or a reference; nothing is stored.

    The scan runs in a worker process within limits of time and memory. Code that a repo or a configuration names is
    never loaded.
    """
    require_json(request)
    request.app.state.limiter.take("scan", request.state.address, request.state.limits_applied)
    body = await request.body()
    workers: Workers = request.app.state.workers
    scanned: bytes = await run_in_threadpool(workers.get_scans().run, SCAN, body)
    return Response(scanned, media_type=JSON, headers={"Cache-Control": "no-store"})
