"""Wait for a blocking function without ever occupying more than one thread with it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from fastapi.concurrency import run_in_threadpool

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """One run at a time of a function that may hang; whoever needs its result meanwhile waits for the same run.

    Args:
        function: The function, called in a thread.
        seconds: Time from the start of a run for which its result is waited for.
    """

    def __init__(self, function: Callable[[], T], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._run: asyncio.Task[T] | None = None
        self._deadline = 0.0

    async def result(self) -> T:
        """Return the result of the run in progress, or of a new one.

        Raises:
            TimeoutError: If it takes longer.
            Exception: What the function raises.
        """
        now = asyncio.get_running_loop().time()
        if self._run is None or self._run.done() or self._run.get_loop() is not asyncio.get_running_loop():
            self._run = asyncio.create_task(run_in_threadpool(self._function))
            self._run.add_done_callback(_retrieve)
            self._deadline = now + self._seconds
        return await asyncio.wait_for(asyncio.shield(self._run), max(self._deadline - now, 0))


def _retrieve(run: "asyncio.Task[T]") -> None:
    """Retrieve an error without a waiter left, which asyncio would report."""
    with suppress(asyncio.CancelledError):
        run.exception()
