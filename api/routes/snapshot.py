"""``/v1/snapshot``: download the whole registry, signed, for mirrors."""

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ...schema import to_json
from ...snapshots import ALGORITHM, SnapshotKey
from ..conditional_requests import CACHE_CONTROL, names_tag
from ..dependencies import OpenRegistry
from ..snapshot_files import Kept, Snapshots
from .history import MAX_SERIAL

router = APIRouter(prefix="/v1", tags=["mirrors"])

MEDIA_TYPE = "application/x-ndjson"

EXAMPLE = (
    '{"format":1,"head":"sha256:4ea1...","loradar":"0.1.0","serial":1,"since":null}\n'
    '{"architecture":{"library":"transformers","name":"llama"},"slots":[],"revisions":[]}\n'
    '{"signature":"kq3T...","signed":{"architectures":1,"digest":"sha256:66f1...","head":"sha256:4ea1...","serial":1,'
    '"since":null}}\n'
)


def _snapshots(request: Request) -> Snapshots:
    kept: Snapshots = request.app.state.snapshots
    return kept


@router.get(
    "/snapshot",
    summary="Download the registry",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": EXAMPLE}},
            "description": "Lines of JSON, the last one signed; compressed if `Accept-Encoding` allows it",
        },
        304: {"description": "The client has it already: `If-None-Match` names its `ETag`"},
    },
)
def get_snapshot(
    request: Request,
    registry: OpenRegistry,
    since: Annotated[
        int | None, Query(ge=0, le=MAX_SERIAL, description="Only the architectures changed after this serial, whole")
    ] = None,
) -> Response:
    """Return every architecture with slots, renames and revisions, or only those changed after a serial."""
    snapshots, is_plain = _snapshots(request), not _accepts_gzip(request)
    if since is not None:
        made = snapshots.make_since(registry, since)
        return _stream(snapshots, made, is_plain=is_plain, headers={"Cache-Control": "no-store"})
    kept = snapshots.get(registry)
    key = snapshots.signer().key[:8].replace("/", "_").replace("+", "-")
    tags = {plain: f'"s{kept.serial}-{key}{"" if plain else "-gzip"}"' for plain in (is_plain, not is_plain)}
    headers = {"ETag": tags[is_plain], "Cache-Control": CACHE_CONTROL, "Vary": "Accept-Encoding"}
    condition = request.headers.get("If-None-Match", "")
    for tag in tags.values():
        if names_tag(condition, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers | {"ETag": tag})
    return _stream(snapshots, kept, is_plain=is_plain, headers=headers)


def _accepts_gzip(request: Request) -> bool:
    """Return whether a client accepts gzip; a weight of 0 means it does not."""
    offers = request.headers.get("Accept-Encoding", "").replace(" ", "").lower().split(",")
    weights = dict(offer.partition(";")[::2] for offer in offers)
    return "gzip" in weights and not re.fullmatch(r"q=0(\.0*)?", weights["gzip"])


def _stream(snapshots: Snapshots, kept: Kept, *, is_plain: bool, headers: dict[str, str]) -> Response:
    if not is_plain:
        headers |= {"Content-Encoding": "gzip", "Content-Length": str(kept.path.stat().st_size)}
    return StreamingResponse(snapshots.take(kept, is_plain=is_plain), media_type=MEDIA_TYPE, headers=headers)


@router.get("/snapshot/key", summary="Get the key of snapshots", responses={200: {"model": SnapshotKey}})
def get_key(request: Request) -> JSONResponse:
    """Return the public key that snapshots are signed with: keep it, and verify every snapshot with it."""
    return JSONResponse(to_json(SnapshotKey(ALGORITHM, _snapshots(request).signer().key)))
