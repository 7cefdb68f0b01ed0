"""Keep signed, compressed snapshots as files, one per state of the registry."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import BinaryIO

from ..errors import Overloaded
from ..registry import Registry
from ..settings import Settings
from ..snapshots import Signer, signed_lines

FRESH_SECONDS = 60.0
"""Age up to which an outdated snapshot is served: the change feed has the rest, and a new one takes seconds."""

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
    """

    path: Path
    serial: int
    made: float


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
        serial, kept = registry.serial(), self._kept
        if kept and _is_good(kept, serial):
            return kept
        if kept and self._lock.locked():
            return kept
        with self._turn():
            kept = self._kept
            if kept is None or not _is_good(kept, serial):
                made = self._make(registry, None)
                # The one before is kept too: a response that was just given it may not have opened it yet.
                expired, self._before, self._kept = self._before, kept, made
                if expired:
                    expired.path.unlink()  # an open file stays readable
                return made
            return kept

    def make_since(self, registry: Registry, since: int) -> Kept:
        """Return a snapshot of the changes after a serial, or of everything if they cannot be determined.

        Raises:
            Overloaded: If too many requests wait.
        """
        if not registry.can_tell_since(since):
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
        made = monotonic()
        try:
            with registry.snapshot(since) as lines, gzip.open(path, "wb", _LEVEL) as file:
                for line in signed_lines(lines, signer):
                    file.write(line)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with gzip.open(path) as file:
            serial = int(json.loads(file.readline())["serial"])
        return Kept(path, serial, made)

    def take(self, made: Kept, *, is_plain: bool) -> Iterator[bytes]:
        """Open a snapshot and return its bytes, plain or compressed; a file that is not kept is removed."""
        file = made.path.open("rb")
        if made not in (self._kept, self._before):
            made.path.unlink()
        return _chunks(file, is_plain=is_plain)


def _is_good(kept: Kept, serial: int) -> bool:
    return kept.serial == serial or monotonic() - kept.made < FRESH_SECONDS


def _chunks(file: BinaryIO, *, is_plain: bool) -> Iterator[bytes]:
    with file, gzip.open(file) if is_plain else file as content:
        while chunk := content.read(CHUNK):
            yield chunk
