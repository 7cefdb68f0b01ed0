"""``/v1/snapshot``: download the whole registry, signed, for mirrors; one file is kept per state of the registry."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore, Lock
from time import monotonic, time
from typing import Annotated, BinaryIO, cast

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ...errors import Overloaded
from ...registry import Registry, State
from ...schema import to_json
from ...settings import Settings
from ...snapshots import ALGORITHM, Signer, SnapshotKey, signed_lines
from ..dependencies import CACHE_CONTROL, OpenRegistry, names_tag
from ..negotiation import accepts_gzip
from .history import MAX_SERIAL

router = APIRouter(prefix="/v1", tags=["mirrors"])

MEDIA_TYPE = "application/x-ndjson"

EXAMPLE = (
    '{"format":2,"head":"sha256:4ea1...","loradar":"0.1.0","serial":1,"since":null}\n'
    '{"architecture":{"library":"transformers","name":"llama"},"slots":[],"revisions":[]}\n'
    '{"signature":"kq3T...","signed":{"architectures":1,"digest":"sha256:66f1...","head":"sha256:4ea1...","serial":1,'
    '"since":null}}\n'
)

FRESH_SECONDS = 60.0
"""Age up to which an outdated snapshot is served: the change feed has the rest, and a new one takes seconds."""

RENEW_SECONDS = 86400.0
"""Age from which a snapshot is made and signed anew though nothing changed: it would expire."""

WAIT_SECONDS = 20.0
"""How long a request waits for a snapshot being made."""

MAX_WAITING = 4
"""Requests that may wait at once: each holds a thread that others may need."""

CHUNK = 1 << 16
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot on disk, compressed.

    Attributes:
        made: Time of its start by the monotonic clock, in seconds.
        issued: Time at which it was signed, in seconds.
    """

    path: Path
    state: State
    made: float
    issued: int


class Snapshots:
    """Make and keep the snapshots of one service, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock, self._room = Lock(), BoundedSemaphore(MAX_WAITING)
        self._signer: Signer | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._kept: Kept | None = None
        self._before: Kept | None = None
        self._count = 0

    def signer(self) -> Signer:
        """Return the signer of snapshots.

        Raises:
            InvalidConfig: If the key is invalid, or a new one cannot be stored.
        """
        self._signer = self._signer or Signer.of(self._settings)
        return self._signer

    def get(self, registry: Registry) -> Kept:
        """Return a snapshot of the whole registry, at most ``FRESH_SECONDS`` behind.

        While a newer one is being made, the present one is returned.

        Raises:
            Overloaded: If there is none, and making one takes too long.
        """
        state, kept = registry.state(), self._kept
        if kept and (_is_good(kept, state) or self._lock.locked()):
            return kept
        with self._turn():
            kept = self._kept
            if kept and _is_good(kept, state):
                return kept
            made = self._make(registry, None)
            # The one before is kept too: a response that was just given it may not have opened it yet.
            expired, self._before, self._kept = self._before, kept, made
            if expired:
                expired.path.unlink()  # an open file stays readable
            return made

    def make_since(self, registry: Registry, since: int) -> Kept:
        """Return a snapshot of the changes after a serial, or of everything if they cannot be determined.

        Raises:
            Overloaded: If too many requests wait.
        """
        if not registry.mirror.can_tell_since(since):
            return self.get(registry)
        with self._turn():
            return self._make(registry, since)

    def close(self) -> None:
        """Remove every file."""
        with self._lock:
            if self._folder:
                self._folder.cleanup()
            self._folder = self._kept = self._before = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the right to make a snapshot, among at most ``MAX_WAITING`` others."""
        has_room = self._room.acquire(blocking=False)
        is_acquired = has_room and self._lock.acquire(timeout=WAIT_SECONDS)
        if has_room:
            self._room.release()
        if not is_acquired:
            raise Overloaded("A snapshot is being made for other requests: try again in a minute.", retry_after=60)
        try:
            yield
        finally:
            self._lock.release()

    def _make(self, registry: Registry, since: int | None) -> Kept:
        signer = self.signer()
        self._folder = self._folder or TemporaryDirectory(prefix="loradar-snapshots-")
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.jsonl.gz"
        made, issued = monotonic(), int(time())
        try:
            with registry.snapshot(since) as lines, gzip.open(path, "wb", _LEVEL) as file:
                for line in signed_lines(lines, signer):
                    file.write(line)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with gzip.open(path) as file:
            first = json.loads(file.readline())
        return Kept(path, (first["serial"], first["head"]), made, issued)

    def is_kept(self, made: Kept) -> bool:
        """Return whether a snapshot is one for everybody, and not made for one request."""
        return made in (self._kept, self._before)

    def open(self, made: Kept) -> BinaryIO:
        """Open a snapshot; one that is not kept is removed."""
        file = made.path.open("rb")
        if not self.is_kept(made):
            made.path.unlink()
        return file


class _Download(StreamingResponse):
    """A response from a file, which is closed however the response ends: also when the client goes away."""

    def __init__(self, content: Iterator[bytes], file: BinaryIO, status: int, headers: dict[str, str]) -> None:
        super().__init__(content, status, headers, MEDIA_TYPE)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _is_good(kept: Kept, state: State) -> bool:
    age = monotonic() - kept.made
    return age < (RENEW_SECONDS if kept.state == state else FRESH_SECONDS)


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
        206: {"description": "The rest of the compressed form, from `Range` on, if `If-Range` names its `ETag`"},
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
    snapshots, is_plain = _snapshots(request), not accepts_gzip(request.scope)
    kept = snapshots.get(registry) if since is None else snapshots.make_since(registry, since)
    if not snapshots.is_kept(kept):
        return _stream(snapshots, kept, is_plain=is_plain, headers={"Cache-Control": "no-store"})
    key = snapshots.signer().key[:8].replace("/", "_").replace("+", "-")
    tags = {
        plain: f'"s{kept.state[0]}-{key}-{kept.issued}{"" if plain else "-gzip"}"' for plain in (is_plain, not is_plain)
    }
    headers = {"ETag": tags[is_plain], "Cache-Control": CACHE_CONTROL, "Vary": "Accept-Encoding"}
    condition = request.headers.get("If-None-Match", "")
    for tag in tags.values():
        if names_tag(condition, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers | {"ETag": tag})
    start = 0 if is_plain else _parse_start(request, tags[is_plain], kept.path.stat().st_size)
    return _stream(snapshots, kept, is_plain=is_plain, headers=headers, start=start)


def _parse_start(request: Request, tag: str, size: int) -> int:
    """Return the byte from which a download of the same file continues; other ranges are ignored, as they may be."""
    wanted = re.fullmatch(r"bytes=(\d{1,15})-", request.headers.get("Range", ""))
    return int(wanted[1]) if wanted and request.headers.get("If-Range") == tag and int(wanted[1]) < size else 0


def _stream(snapshots: Snapshots, kept: Kept, *, is_plain: bool, headers: dict[str, str], start: int = 0) -> _Download:
    status = HTTPStatus.OK
    if not is_plain:
        size = kept.path.stat().st_size
        headers |= {"Content-Encoding": "gzip", "Content-Length": str(size - start), "Accept-Ranges": "bytes"}
        if start:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    file = snapshots.open(kept)
    file.seek(start)

    def read_chunks() -> Iterator[bytes]:
        # The response closes the file below.
        content = cast("BinaryIO", gzip.open(file)) if is_plain else file  # noqa: SIM115
        while chunk := content.read(CHUNK):
            yield chunk

    return _Download(read_chunks(), file, status, headers)


@router.get("/snapshot/key", summary="Get the key of snapshots", responses={200: {"model": SnapshotKey}})
def get_key(request: Request) -> JSONResponse:
    """Return the public key that snapshots are signed with: keep it, and verify every snapshot with it."""
    return JSONResponse(to_json(SnapshotKey(ALGORITHM, _snapshots(request).signer().key)))
