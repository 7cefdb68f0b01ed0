"""Snapshots as files: made once per state of the registry, signed and compressed, kept until there is a newer one."""

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
from ..signing import Signer
from ..snapshots import signed_lines

FRESH_SECONDS = 60.0
"""How long a snapshot is served though there were changes: they are in the feed, and each new one costs seconds."""

WAIT_SECONDS = 20.0
"""How long a request waits for one that is being made."""

MAX_WAITING = 4
"""Requests that wait at once: each keeps a thread that others may need."""

CHUNK = 1 << 16
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot on disk, compressed.

    Attributes:
        made: When, by the clock that only goes forward.
    """

    path: Path
    serial: int
    made: float


class Snapshots:
    """Makes and keeps snapshots for one service; one at a time is made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock, self._room = Lock(), BoundedSemaphore(MAX_WAITING)
        self._signer: Signer | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._kept: Kept | None = None
        self._before: Kept | None = None
        self._count = 0

    def signer(self) -> Signer:
        """Return who signs.

        Raises:
            InvalidConfig: If the key is none or cannot be kept.
        """
        self._signer = self._signer or Signer.of(self._settings)
        return self._signer

    def get(self, registry: Registry) -> Kept:
        """Return a snapshot of the whole registry, at most ``FRESH_SECONDS`` behind.

        While a newer one is being made, the one there is is answered.

        Raises:
            Overloaded: If there is none, and it takes too long to make one.
        """
        serial, kept = registry.serial(), self._kept
        if kept and _is_good(kept, serial):
            return kept
        if kept and self._lock.locked():
            return kept
        with self._turn():
            kept = self._kept
            if kept is None or not _is_good(kept, serial):
                self._keep(self._make(registry, None))
            assert self._kept is not None  # noqa: S101 - just kept; this tells mypy
            return self._kept

    def make_since(self, registry: Registry, since: int) -> Kept:
        """Return what was touched after a serial, and all if that cannot be told; see ``take``.

        Raises:
            Overloaded: If too many others ask.
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
        with self._waiting():
            is_ours = self._lock.acquire(timeout=WAIT_SECONDS)
        if not is_ours:
            raise _overloaded()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._room.acquire(blocking=False):
            raise _overloaded()
        try:
            yield
        finally:
            self._room.release()

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
        return Kept(path, _serial_in(path), made)

    def _keep(self, kept: Kept) -> None:
        """Keep a snapshot, and the one before: who was just given that may not have opened it yet."""
        gone, self._before, self._kept = self._before, self._kept, kept
        if gone:
            gone.path.unlink()  # who is reading it goes on reading

    def take(self, made: Kept, *, is_plain: bool) -> Iterator[bytes]:
        """Open a snapshot and return its bytes, plain or compressed; if it is not kept, it is removed."""
        file = made.path.open("rb")
        if made not in (self._kept, self._before):
            made.path.unlink()
        return _chunks(file, is_plain=is_plain)


def _is_good(kept: Kept, serial: int) -> bool:
    return kept.serial == serial or monotonic() - kept.made < FRESH_SECONDS


def _serial_in(path: Path) -> int:
    with gzip.open(path) as file:
        return int(json.loads(file.readline())["serial"])


def _chunks(file: BinaryIO, *, is_plain: bool) -> Iterator[bytes]:
    with file, gzip.open(file) if is_plain else file as content:
        while chunk := content.read(CHUNK):
            yield chunk


def _overloaded() -> Overloaded:
    return Overloaded("A snapshot is being made for others. Come again in a minute.", retry_after=60)
