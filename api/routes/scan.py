"""``POST /v1/scan``: propose targets for an architecture that is not registered."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from ...domain.mappings import ArchitectureDetail
from ...domain.scans import Scan
from ...registry import unpack_scan
from ...sandbox.tasks import LISTABLE
from ...schema import Config, schema_config, to_json
from ...weights.sent_files import MOST_FILES
from ..errors import NOT_FOUND, error_responses
from ..kept_scans import SECONDS, KeptScans
from ..middleware import LARGEST_SCAN
from ..requests import JSON, require_json
from ..uploads import MULTIPART, ScanForm, is_form, read_scan_form

if TYPE_CHECKING:
    from ..workers import Workers

router = APIRouter(prefix="/v1", tags=["scan"])

SCAN = "loradar.sandbox.tasks:scan_request"
SCAN_FILES = "loradar.sandbox.tasks:scan_files"
"""Named, not imported: they import torch, in the worker."""

FORM_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "array",
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
            "description": "`config.json`, `*.index.json`, or the start of `.safetensors` or `.gguf` files of a model",
        },
        "text": {"type": "string", "description": "The content of one of these that is JSON"},
        "reference": {"type": "string", "description": "As in JSON, without files and text"},
    },
}


ScanId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9_-]{22}$",
        description="Id of a scan made on the page `/scan`",
        examples=["Zk3vW0hQq1m8bTn5yLr2Xg"],
    ),
]


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """The scans that the service runs for others, and their limits."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (ScanLimits(LISTABLE, LARGEST_SCAN, MOST_FILES, 10, int(SECONDS)),)
    )

    libraries: tuple[str, ...]
    """Libraries whose architectures are built by name or configuration."""
    most_bytes: int
    """Bytes of a body."""
    most_files: int
    """Files of one model."""
    per_minute: int
    """Scans of one address per minute."""
    kept_seconds: int
    """Time for which a scan made on the page is kept; over REST none is."""


@router.get("/scan", summary="Get the limits of scans", responses={200: {"model": ScanLimits}})
def get_scan_limits(request: Request) -> JSONResponse:
    """Return the scans that the service runs for others, and their limits."""
    limits = ScanLimits(LISTABLE, LARGEST_SCAN, MOST_FILES, request.app.state.settings.limits.scan, int(SECONDS))
    return JSONResponse(to_json(limits))


@router.get(
    "/scan/{scan_id}", summary="Get a scan of the page", responses={200: {"model": ArchitectureDetail}, **NOT_FOUND}
)
def get_kept_scan(request: Request, scan_id: ScanId) -> JSONResponse:
    """Return the architecture that was scanned on the page `/scan`, as one that is registered; for an hour."""
    kept: KeptScans = request.app.state.kept_scans
    scanned = unpack_scan(kept.get(scan_id))
    try:
        return JSONResponse(to_json(scanned.detail), headers={"Cache-Control": "no-store"})
    finally:
        scanned.registry.close()


@router.post(
    "/scan",
    summary="Scan an architecture",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/ScanRequest"}},
                MULTIPART: {"schema": FORM_SCHEMA, "example": {"text": '{"model_type": "olmo2"}'}},
            },
        }
    },
    responses={
        200: {"model": Scan, "description": "What `loradar scan --json` prints"},
        **error_responses(400, 404, 413, 415, 501, 502),
    },
)
async def scan(request: Request) -> Response:
    """Propose targets for a `config.json`, a list of layers, the headers of weights, or a reference; nothing is stored.

    The scan runs in a worker process within limits of time and memory. Code that a repo or a configuration names is
    never loaded, and no weight is read.
    """
    is_json = not is_form(request)
    if is_json:
        require_json(request)
    count_scan(request)
    if is_json:
        scanned = await _run(request, SCAN, await request.body())
    else:
        scanned = await scan_form(request, await read_scan_form(request))
    return Response(scanned, media_type=JSON, headers={"Cache-Control": "no-store"})


def count_scan(request: Request) -> None:
    """Count a scan of a client's address.

    Raises:
        TooManyRequests: If it has none left.
    """
    request.app.state.limiter.take("scan", request.state.address, request.state.limits_applied)


async def scan_form(request: Request, form: ScanForm) -> bytes:
    """Return the JSON of the scan of the files in a form.

    Raises:
        LoradarError: As the scan, or because the form holds nothing, or too much.
    """
    contents = form.list_contents()
    if form.reference:
        return await _run(request, SCAN, json.dumps({"reference": form.reference}).encode())
    return await _run(request, SCAN_FILES, contents)


async def _run(request: Request, task: str, sent: object) -> bytes:
    workers: Workers = request.app.state.workers
    with request.app.state.metrics.scanning("scan"):
        scanned: bytes = await run_in_threadpool(workers.get_scans().run, task, sent)
    return scanned
