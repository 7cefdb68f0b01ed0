"""Let writes wait for their turn, first come first served, where they occupy no thread."""

import time
from asyncio import Semaphore, timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

from ...errors import Overloaded
from .metrics import Metrics

POSTGRES_WRITERS = 4
"""Writes at once on a server, which makes them wait for each other where they change the registry; SQLite takes one."""

WAITING = 64
"""Writes that may wait; the next one is rejected."""

WAIT_SECONDS = 10.0
"""Longest wait for a turn."""

FIRST_GUESS = 0.05
"""Assumed duration of a write in seconds, before the first has ended."""


class WriteQueue:
    """The queue of the writes of one process.

    Args:
        at_once: Writes at the same time; their threads are all that writes take from the service.
        metrics: Where the writes that wait are counted.
    """

    def __init__(self, at_once: int, metrics: Metrics) -> None:
        self._at_once, self._metrics = at_once, metrics
        self._slots = Semaphore(at_once)  # which is fair
        self._duration = FIRST_GUESS
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the context lasts.

        Raises:
            Overloaded: If too many wait already, or the turn does not come in time.
        """
        if self.waiting >= WAITING:
            raise self._overloaded(f"{self.waiting} writes wait already")
        self.waiting += 1
        self._metrics.writes_waiting.inc()
        try:
            async with timeout(WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise self._overloaded(f"{self.waiting} writes have waited for up to {WAIT_SECONDS:g} s") from None
        finally:
            self.waiting -= 1
            self._metrics.writes_waiting.dec()
        start = time.monotonic()
        try:
            yield
        finally:
            self._slots.release()
            self._duration += (time.monotonic() - start - self._duration) / 4

    def _overloaded(self, reason: str) -> Overloaded:
        seconds = max(1, ceil(self._duration * self.waiting / self._at_once))
        message = f"{reason}. Try again in {seconds} s."
        return Overloaded(message, retry_after=seconds, limit=WAITING)
