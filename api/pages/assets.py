"""Serve the stylesheet, scripts and icon, each under a name with a digest of its content, to be kept for a year."""

import mimetypes
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from ..negotiation import compress

FOLDER = Path(__file__).parent / "static"
DIGITS = 12
FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@cache
def _files() -> dict[str, tuple[str, bytes]]:
    """Return the name with digest, and the content, of every file."""
    contents = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.is_file()}
    digests = {name: sha256(content).hexdigest()[:DIGITS] for name, content in contents.items()}
    return {name: (f"{digests[name]}-{name}", content) for name, content in contents.items()}


@cache
def path_of(name: str) -> str:
    """Return the path of a file: ``/static/0f3a...-app.css``."""
    return f"/static/{_files()[name][0]}"


@router.get("/static/{name}")
async def get_static(request: Request, name: str) -> Response:
    """Return a file; one with another digest is of another version, and not there."""
    content = dict(_files().values()).get(name)
    if content is None:
        raise HTTPException(404)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Cache-Control": FOREVER, "X-Content-Type-Options": "nosniff"}
    response = Response(content, headers=headers, media_type=kind)
    compress(request.scope, response)
    return response
