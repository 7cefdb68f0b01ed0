"""Notice cheaply whether a registry may have changed since its state was read."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SETTLED = 50_000_000
"""Nanoseconds after which a further write to a file changes its time: many kernels count it in steps of 4 or 10 ms."""

LAG = 0.1
"""Seconds for which a state that was read from a server is taken for the present one."""

State = tuple[int, str | None]
"""The serial of a registry, and the digest of its last change: after a backup was restored, or a mirror set back, the
same serial may stand for another content."""

Signature = tuple[tuple[int, int, int] | None, ...]


class StateWatch:
    """A watch over the state of one registry.

    Every commit to an SQLite file changes the file or its write-ahead log, so a look at both tells whether there was
    one, by whatever process. A server would have to be asked: there a change by another process may be noticed ``LAG``
    seconds late.

    Args:
        file: Path of an SQLite file, or ``None`` for another database.
        read_state: Read the state of the registry; not needed where it only matters whether that is the same.
    """

    def __init__(self, file: Path | str | None, read_state: Callable[[], State] = lambda: (0, None)) -> None:
        self._file = file
        self._files: tuple[str, ...] = ()
        self._read_state = read_state
        self._seen: Signature | None = None
        self._read_at = -LAG

    def is_unchanged(self) -> bool:
        """Return whether the registry is certainly, or on a server most likely, as it was at the last ``renew``."""
        if not self._file:
            return time.monotonic() - self._read_at < LAG
        return self._seen is not None and self._seen == self._sign()

    def renew(self) -> State:
        """Read and return the state, and watch from here on.

        Raises:
            DatabaseUnusable: If the database cannot be reached or read.
        """
        if self._file:  # a link may lead elsewhere by now
            self._files = (str(self._file), f"{os.path.realpath(self._file)}-wal")
        signature, now, read_at = self._sign(), time.time_ns(), time.monotonic()
        state = self._read_state()
        # Younger, a second write could leave the time, and in a log that is begun anew the size, as they are.
        is_settled = all(abs(now - part[0]) > SETTLED for part in signature if part)
        self._seen, self._read_at = signature if is_settled else None, read_at
        return state

    def expire(self) -> None:
        """Forget the last ``renew``, as after a write by this process."""
        self._seen, self._read_at = None, -LAG

    def _sign(self) -> Signature:
        parts: list[tuple[int, int, int] | None] = []
        for file in self._files:
            parts.append(None)
            with suppress(OSError):
                status = os.stat(file)  # noqa: PTH116 - a Path would take longer than the rest
                parts[-1] = status.st_mtime_ns, status.st_size, status.st_ino
        return tuple(parts)
