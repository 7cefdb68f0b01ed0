"""The pool of worker processes: it runs functions within bounds of time and memory, and survives every worker.

Each task gets a new process, forked from a server process that has imported the heavy libraries: it starts within
milliseconds, has no state of the task before, and returns its memory when it ends. The calling process imports none of
these libraries. Server and workers have a clean environment: none of the caller's tokens, keys and database URL.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import InvalidRequest, LoradarError, Overloaded, WorkerFailed
from ..extras import require
from ..received_errors import to_error
from .process_isolation import clean_spawns, run_task

if TYPE_CHECKING:
    from pebble import ProcessFuture

T = TypeVar("T")

PRELOAD = (
    *("loradar.discovery.preloaded", "loradar.sandbox.tasks", "loradar.registry", "loradar.cli"),
    "loradar.adapters.doctor.sent",
)
"""Modules imported once, before workers are forked. Every worker imports the main script of its caller, hence cli."""

START_SECONDS = 180.0
"""Time for the server process to import them."""

WAITING = 16
"""Tasks that may wait for a worker; the next one is rejected."""

NICE = 10
"""Priority of a worker below its caller's: where processors are few, a lookup does not wait for a scan."""

STOP_SECONDS = 10.0
"""Time for a worker to end after a request to; it is killed before that."""

FIRST_GUESS = 5.0
"""Assumed duration of a task in seconds, before the first one has ended."""

_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Bounds:
    """The number of workers, and the time and memory of one task.

    Attributes:
        workers: Processes that work at the same time.
        seconds: Time for one task; a worker that takes longer is killed.
        memory: GiB a worker may allocate beyond its size at the start of the task.
    """

    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    seconds: float = 120.0
    memory: float = 8.0

    def __post_init__(self) -> None:
        for name in ("workers", "seconds", "memory"):
            if getattr(self, name) <= 0:
                message = f"Cannot scan with {name} = {getattr(self, name)}. Give more than 0."
                raise InvalidRequest(message, **{name: getattr(self, name)})


class Sandbox:
    """A pool of worker processes that start on demand; also a context manager that ends them.

    Args:
        bounds: The number of tasks at a time, and the time and memory of each.
        waiting: The number of tasks that may wait.
        preload: Modules imported before workers are forked.
        nice: How far the priority of workers, and of the server process that the first sandbox here starts, is
            below that of this process.
    """

    def __init__(
        self,
        bounds: Bounds | None = None,
        *,
        waiting: int = WAITING,
        preload: tuple[str, ...] = PRELOAD,
        nice: int = NICE,
    ) -> None:
        require("scan", "pebble")
        self.bounds = bounds or Bounds()
        self._waiting = waiting
        self._preload = preload
        self._nice = nice
        self._threads = ThreadPoolExecutor(self.bounds.workers, thread_name_prefix="sandbox")
        self._lock, self._start_lock = Lock(), Lock()
        self._name = f"sandbox-{next(_NUMBERS)}"
        self._open = 0
        self._duration = FIRST_GUESS
        self._running: set[ProcessFuture[Any]] = set()
        self._is_started = self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, function: str | Callable[..., T], /, *args: Any) -> T:
        """Run a function in a worker and return its result; see ``submit``."""
        return self.submit(function, *args).result()

    def submit(self, function: str | Callable[..., T], /, *args: Any) -> "Future[T]":
        """Schedule a function in a worker; the future holds its result, or a ``LoradarError``.

        Args:
            function: A function at the top of a module, or its dotted name; a dotted name is imported in the worker
                only.
            args: Its arguments; they and the result must be picklable.

        Raises:
            Overloaded: If too many tasks are waiting already.
            WorkerFailed: If the sandbox is closed.
        """
        return self._schedule(function, args, self._waiting)

    def run_each(self, function: Callable[[str], T], names: Sequence[str], /) -> Iterator[tuple[str, T | str]]:
        """Run a function on each name and yield (name, result), or (name, reason) if it failed, as they complete.

        Any number of names may wait.

        Args:
            function: As for ``submit``.
            names: The argument of each run.

        Raises:
            WorkerFailed: If the sandbox is closed.
        """
        futures = {self._schedule(function, (name,), len(names)): name for name in names}
        for future in as_completed(futures):
            error = future.exception()
            name = futures.pop(future)
            yield name, future.result() if error is None else _name_reason(error, self.bounds)

    def warm(self) -> None:
        """Start the server process now rather than with the first task.

        Raises:
            WorkerFailed: If it does not start.
        """
        with self._start_lock:
            if not self._is_started:
                self._call(os.getpid, (), START_SECONDS)
                self._is_started = True

    def close(self) -> None:
        """End every worker at once and cancel the tasks that wait."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for future in running:
            future.cancel()  # type: ignore[no-untyped-call]
        self._threads.shutdown(wait=True, cancel_futures=True)
        # A future is cancelled at once, and pebble's thread ends the process then: a caller that exits before leaves it
        # behind.
        for thread in threading.enumerate():
            if thread.name == self._name:
                thread.join(STOP_SECONDS)

    def _schedule(self, function: str | Callable[..., T], args: tuple[Any, ...], waiting: int) -> "Future[T]":
        with self._lock:
            if self._is_closed:
                message = "The workers are stopped. Ask again when the service is up."
                raise WorkerFailed(message, reason="stopped")
            limit = self.bounds.workers + waiting
            if self._open >= limit:
                seconds = max(1, ceil(self._duration * self._open / self.bounds.workers))
                message = f"{self._open} scans and checks are at work or waiting already. Come again in {seconds} s."
                raise Overloaded(message, retry_after=seconds, limit=limit)
            self._open += 1
            return self._threads.submit(self._work, function, args)

    def _work(self, function: str | Callable[..., T], args: tuple[Any, ...]) -> T:
        """Run a task from a thread of the pool, which waits for it."""
        try:
            self.warm()
            start = time.monotonic()
            result: T = self._call(function, args, self.bounds.seconds)
        finally:
            with self._lock:
                self._open -= 1
        self._duration += (time.monotonic() - start - self._duration) / 4
        return result

    def _call(self, function: str | Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
        future = self._launch((function, args, self.bounds.memory, self._preload, self._nice), seconds)
        try:
            kind, result = future.result()
        except (Exception, CancelledError) as error:  # noqa: BLE001 - a dying process may leave anything
            raise _explain_end(error, seconds) from None
        finally:
            with self._lock:
                self._running.discard(future)
        if kind == "error":
            raise to_error(result)
        if kind == "memory":
            message = f"It took more than {self.bounds.memory:g} GiB, and was ended. Send something smaller."
            raise WorkerFailed(message, reason="out_of_memory", memory=self.bounds.memory)
        if kind == "crash":
            message = f"The worker failed: {result}."
            raise WorkerFailed(message, reason="error", cause=result)
        return result

    def _launch(self, task: tuple[Any, ...], seconds: float) -> "ProcessFuture[tuple[str, Any]]":
        """Start the worker of a task.

        It is never forked from this process, which has threads and an open database: a server process forks it, or it
        starts from nothing on systems without one.
        """
        from pebble import concurrent  # noqa: PLC0415 - an extra

        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([*self._preload])
        # Its annotation has mp_context; its code reads context (pebble 5.2.3).
        start: Any = concurrent.process(timeout=seconds, context=context, name=self._name)  # type: ignore[call-overload]
        try:
            with clean_spawns(self._nice):
                future: ProcessFuture[tuple[str, Any]] = start(run_task)(*task)
        except (OSError, EOFError) as error:
            message = f"No worker can be started ({error}). Come again later."
            raise WorkerFailed(message, reason="not_started") from error
        # Without this, an outcome that arrives while the future is cancelled is an error in pebble's thread.
        future.set_result = ignore_cancelled(future.set_result)  # type: ignore[assignment, method-assign]
        future.set_exception = ignore_cancelled(future.set_exception)  # type: ignore[assignment, method-assign]
        with self._lock:
            self._running.add(future)
            if self._is_closed:
                future.cancel()  # type: ignore[no-untyped-call]
        return future


def ignore_cancelled(settle: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a function that settles a future, or does nothing if the future was cancelled just before."""

    def set_outcome(outcome: Any) -> None:
        with suppress(InvalidStateError):
            settle(outcome)

    return set_outcome


def _explain_end(error: BaseException, seconds: float) -> WorkerFailed:
    """Return the error for a worker that ended without a result."""
    if isinstance(error, TimeoutError):
        message = f"It took more than {seconds:g} s, and was ended. Send something smaller."
        return WorkerFailed(message, reason="out_of_time", seconds=seconds)
    if isinstance(error, CancelledError):
        return WorkerFailed("It was ended, because the service stops. Ask again.", reason="stopped")
    code: int | None = getattr(error, "exitcode", None)
    if code == -signal.SIGKILL:
        how = "was killed, as a system does that runs out of memory"
    elif code is not None and code < 0:
        how = f"died of {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}" if code is not None else f"failed: {type(error).__name__}: {error}"
    return WorkerFailed(f"The worker {how}. Nothing else is affected.", reason="died", exit_code=code)


def _name_reason(error: BaseException, bounds: Bounds) -> str:
    """Return the reason why a task of ``run_each`` has no result, as catalogs store it."""
    details = error.details if isinstance(error, WorkerFailed) else {}
    match details.get("reason"):
        case "out_of_time":
            return f"It was not scanned within {bounds.seconds:g} s."
        case "out_of_memory":
            return f"It takes more than {bounds.memory:g} GiB."
        case "died":
            return f"Its worker ended with exit code {details['exit_code']} (a worker may take {bounds.memory:g} GiB)."
        case "error":
            return str(details["cause"])
    return error.message if isinstance(error, LoradarError) else str(error)
