"""Let the writers of one SQLite file take turns.

SQLite leaves it to luck: whoever looks at the moment the lock is free has it, and looks ever more rarely the longer it
has waited. So the threads of a process queue here, first come first served, and of several processes one at a time
waits for the lock itself.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock

try:
    import fcntl
except ImportError:  # not on Windows: processes there wait as SQLite does
    fcntl = None  # type: ignore[assignment]

LOOK_EVERY = 0.002
"""Seconds between two looks at a lock of another process."""


class Turns:
    """A queue of writers, first come first served.

    Args:
        folder: The folder of the database; it is locked, as a lock on the file would interfere with SQLite's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._waiting: deque[Event] = deque()
        self._is_taken = False

    @contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Wait for this thread's turn, and yield whether it came within some seconds."""
        if not self._enter(seconds):
            yield False
            return
        try:
            yield True
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._is_taken = False

    def _enter(self, seconds: float) -> bool:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return True
            own = Event()
            self._waiting.append(own)
        if own.wait(seconds):
            return True
        with self._lock:
            if own.is_set():  # it came just now
                return True
            self._waiting.remove(own)
            return False

    @contextmanager
    def first_in_line(self, end: float) -> Iterator[None]:
        """Wait until no other process waits for the database, up to a monotonic time.

        It is a courtesy: where the folder cannot be locked, or a program holds it for ever, the writer goes on.
        """
        line = None
        with suppress(OSError):
            line = os.open(self._folder, os.O_RDONLY) if fcntl else None
        try:
            while line is not None and not _try_to_lock(line) and time.monotonic() < end:
                time.sleep(LOOK_EVERY)
            yield
        finally:
            if line is not None:
                os.close(line)


def _try_to_lock(descriptor: int) -> bool:
    """Return whether a descriptor was locked, or cannot be locked at all."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
