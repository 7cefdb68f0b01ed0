"""Keep scans that were made on the pages for an hour, in files that all processes of the service on a machine share."""

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from ..errors import UnknownName, WorkerFailed

SECONDS = 3600.0
MOST_FILES = 500
MOST_BYTES = 256 << 20
ENDING = ".scan"

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
"""An id: 128 random bits, which nobody guesses, so that a scan is seen by whoever has its address alone."""


class KeptScans:
    """A folder of packed scans, of bounded size; the oldest make room for new ones.

    Args:
        folder: The folder; it is made when the first scan is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, packed: bytes) -> str:
        """Keep a scan, and return its id.

        Raises:
            WorkerFailed: If it cannot be written.
        """
        scan_id = secrets.token_urlsafe(16)
        part = self._folder / f".{scan_id}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._prune(len(packed))
            with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(packed)
            part.replace(self._folder / f"{scan_id}{ENDING}")
        except OSError as error:
            message = f"The scan cannot be kept ({error.strerror}). Send it to POST /v1/scan, which stores nothing."
            raise WorkerFailed(message, reason="not_kept") from error
        return scan_id

    def get(self, scan_id: str) -> bytes:
        """Return a scan.

        Raises:
            UnknownName: If there is none of this id, or no more.
        """
        path = self._folder / f"{scan_id}{ENDING}"
        if _ID.fullmatch(scan_id):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime <= SECONDS:
                    return path.read_bytes()
        message = f"Scans are kept for {SECONDS / 60:.0f} minutes; this one is not here any more. Scan the model again."
        error = UnknownName(scan_id[:22], (), message)
        error.message = message
        raise error

    def _prune(self, coming: int) -> None:
        """Delete scans that are too old, and the oldest beyond the bounds."""
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):  # another process deletes too
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        size, oldest = coming, time.time() - SECONDS
        for count, (written, length, path) in enumerate(sorted(found, reverse=True), 2):
            size += length
            if written < oldest or count > MOST_FILES or size > MOST_BYTES:
                path.unlink(missing_ok=True)
