"""Download a file from a service: within a limit of size, never from another host, and continued where it broke off."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ServiceUnreachable
from ..progress import Show

if TYPE_CHECKING:
    import httpx2

SECONDS = 60.0
"""Timeout for the next part of a download: a service may have to make the file first."""

LARGEST = 1 << 30
"""Bytes of a download, as they are sent: three hundred times the snapshot of the catalog."""

LARGEST_ERROR = 1 << 20
"""Bytes read of a response that is an error."""

_PART = re.compile(r"bytes (\d+)-")


def download(
    request: "httpx2.Request", http: "httpx2.Client", out: Path, show: Show | None = None
) -> "httpx2.Response | None":
    """Write the content of a response to a file as it is sent, which may be compressed.

    What ``out`` has of an earlier download that broke off is continued, if the service still has the same file: its
    ``ETag`` is kept beside ``out`` until the file is complete. ``show`` is called with the bytes that are there and
    those of the whole file, if the service states them.

    Returns:
        A response that is an error, read; ``None`` if the file was written.

    Raises:
        ServiceUnreachable: If the response is a redirect, or too large.
        OSError: If the file cannot be written.
    """
    note = out.with_name(f"{out.name}.etag")
    size = out.stat().st_size if out.exists() and note.exists() else 0
    if size:
        request.headers["Range"] = f"bytes={size}-"
        request.headers["If-Range"] = note.read_text("ascii", errors="replace")
    # A cache must neither keep so large a response nor answer with a part of another one.
    request.headers.update({"Accept-Encoding": "gzip", "Cache-Control": "no-store"})
    response = http.send(request, stream=True, follow_redirects=False)
    try:
        if response.is_redirect:
            place = response.headers.get("Location", "")[:200]
            raise _unusable(request, f"it redirects to {place!r}, which is not followed. Give the address it serves at")
        if size and response.status_code == 416:  # noqa: PLR2004 - nothing is left: the file is complete, or another
            note.unlink()
            out.unlink()
            del request.headers["Range"], request.headers["If-Range"]
            return download(request, http, out, show)
        if not response.is_success:
            return _read_error(response)
        begun = _PART.match(response.headers.get("Content-Range", ""))
        if response.status_code != 206 or not begun or int(begun[1]) != size:  # noqa: PLR2004 - partial content
            size = 0
        _write(response, out, note, size, show or (lambda *_: None))
    finally:
        response.close()
    note.unlink(missing_ok=True)
    return None


def _write(response: "httpx2.Response", out: Path, note: Path, size: int, show: Show) -> None:
    tag = response.headers.get("ETag", "")
    left = response.headers.get("Content-Length", "")
    total = size + int(left) if left.isdecimal() else None
    if not size:
        note.unlink(missing_ok=True)
    with out.open("ab" if size else "wb") as file:
        if tag and not size:
            note.write_text(tag, "ascii", errors="replace")
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > LARGEST:
                raise _unusable(response.request, f"it sends more than {LARGEST >> 20} MiB")
            file.write(chunk)
            show(size, total)


def _read_error(response: "httpx2.Response") -> "httpx2.Response":
    import httpx2  # noqa: PLC0415 - as everywhere, when a request is sent

    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ERROR:
            break
    return httpx2.Response(response.status_code, content=content, request=response.request)


def _unusable(request: "httpx2.Request", reason: str) -> ServiceUnreachable:
    host = f"{request.url.scheme}://{request.url.netloc.decode()}"
    return ServiceUnreachable(f"No usable response from {host}: {reason}.", url=host, reason=reason)
