"""Runs a function in a process of its own, within bounds: whatever becomes of that process, the caller goes on.

Each task gets a new process, forked from a server that has the heavy libraries imported already: it starts within
milliseconds, knows nothing of the task before, and dies with its own. The calling process imports none of them.
Server and workers have a clean environment: none of the caller's tokens, keys and database URL.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from itertools import count
from math import ceil
from pkgutil import resolve_name
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import LoradarError, Overloaded, WorkerFailed, to_error
from ..extras import require
from .bounds import Bounds, limit_memory
from .process_isolation import clean_spawns, harden

if TYPE_CHECKING:
    from pebble import ProcessFuture

T = TypeVar("T")

PRELOAD = ("loradar.discovery.preloaded", "loradar.sandbox.statement_checks", "loradar.registry")
"""What is imported once, before the processes that work are forked."""

START_SECONDS = 180.0
"""Time the server of processes may take to import that."""

WAITING = 16
"""Tasks that may wait for a worker; the next is turned away."""

STOP_SECONDS = 10.0
"""Time a worker has to end when it is told to: it is killed before that is over."""

NICE = 10
"""How far a worker stands back where there are too few processors: a lookup does not wait for a scan."""

_NUMBERS = count()

FIRST_GUESS = 5.0
"""Seconds a task is expected to take while none has been seen."""


class Sandbox:
    """Workers that start when they are needed; also a context manager that ends them.

    Args:
        bounds: How many tasks run at once, and what each may take.
        waiting: How many more may wait.
        preload: Modules the processes start with.
    """

    def __init__(
        self, bounds: Bounds | None = None, *, waiting: int = WAITING, preload: tuple[str, ...] = PRELOAD
    ) -> None:
        require("scan", "pebble")
        self.bounds = bounds or Bounds()
        self._waiting = waiting
        self._preload = preload
        self._threads = ThreadPoolExecutor(self.bounds.workers, thread_name_prefix="sandbox")
        self._lock, self._start_lock = Lock(), Lock()
        self._name = f"sandbox-{next(_NUMBERS)}"
        self._open = 0
        self._took = FIRST_GUESS
        self._running: set[ProcessFuture[Any]] = set()
        self._is_started = self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, function: str | Callable[..., T], /, *args: Any) -> T:
        """Run a function in a worker and return what it returns; see ``submit``."""
        return self.submit(function, *args).result()

    def submit(self, function: str | Callable[..., T], /, *args: Any) -> "Future[T]":
        """Have a function run in a worker; its future holds what it returns, or an error of ours.

        Args:
            function: A function at the top of a module, or its dotted name; with the name, its module is imported in
                the worker only.
            args: What it is given; must be picklable, as its result.

        Raises:
            Overloaded: If too much is waiting already.
            WorkerFailed: If the sandbox is closed.
        """
        with self._lock:
            if self._is_closed:
                message = "The workers are stopped. Ask again when the service is up."
                raise WorkerFailed(message, reason="stopped")
            if self._open >= self.bounds.workers + self._waiting:
                raise self._overloaded()
            self._open += 1
            return self._threads.submit(self._work, function, args)

    def warm(self) -> None:
        """Start the server of processes now rather than with the first task.

        Raises:
            WorkerFailed: If it does not start.
        """
        with self._start_lock:
            if not self._is_started:
                self._call(_nothing, (), START_SECONDS)
                self._is_started = True

    def close(self) -> None:
        """End every worker, whatever it is doing, and drop what waits."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for future in running:
            future.cancel()  # type: ignore[no-untyped-call]
        self._threads.shutdown(wait=True, cancel_futures=True)
        # A future is cancelled at once, and pebble's thread ends the process then; who exits first leaves it behind.
        for thread in threading.enumerate():
            if thread.name == self._name:
                thread.join(STOP_SECONDS)

    def _overloaded(self) -> Overloaded:
        seconds = max(1, ceil(self._took * self._open / self.bounds.workers))
        message = f"{self._open} scans and checks are at work or waiting already. Come again in {seconds} s."
        return Overloaded(message, retry_after=seconds, limit=self.bounds.workers + self._waiting)

    def _work(self, function: str | Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            self.warm()
            start = time.monotonic()
            result: T = self._call(function, args, self.bounds.seconds)
        finally:
            with self._lock:
                self._open -= 1
        self._took += (time.monotonic() - start - self._took) / 4
        return result

    def _call(self, function: str | Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
        future = self._launch((function, args, self.bounds.memory, self._preload), seconds)
        try:
            kind, result = future.result()
        except (Exception, CancelledError) as error:  # noqa: BLE001 - what a dying process leaves may be anything
            raise self._failed(error, seconds) from None
        finally:
            with self._lock:
                self._running.discard(future)
        if kind == "error":
            raise to_error(result)
        if kind == "memory":
            raise self._out_of_memory()
        if kind == "crash":
            message = f"The worker failed: {result}."
            raise WorkerFailed(message, reason="error", cause=result)
        return result

    def _launch(self, task: tuple[Any, ...], seconds: float) -> "ProcessFuture[tuple[str, Any]]":
        from pebble import concurrent  # noqa: PLC0415 - an extra

        # Its annotation says mp_context; what it reads is context (pebble 5.2.3).
        start: Any = concurrent.process(  # type: ignore[call-overload]
            timeout=seconds, context=_context(self._preload), name=self._name
        )
        try:
            with clean_spawns():
                future: ProcessFuture[tuple[str, Any]] = start(_enter)(*task)
        except (OSError, EOFError) as error:
            message = f"No worker can be started ({error}). Come again later."
            raise WorkerFailed(message, reason="not_started") from error
        # An outcome that comes while the future is cancelled would be refused with an error in pebble's thread.
        future.set_result = _unless_settled(future.set_result)  # type: ignore[assignment, method-assign]
        future.set_exception = _unless_settled(future.set_exception)  # type: ignore[assignment, method-assign]
        with self._lock:
            self._running.add(future)
            if self._is_closed:
                future.cancel()  # type: ignore[no-untyped-call]
        return future

    def _failed(self, error: BaseException, seconds: float) -> WorkerFailed:
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

    def _out_of_memory(self) -> WorkerFailed:
        message = f"It took more than {self.bounds.memory:g} GiB, and was ended. Send something smaller."
        return WorkerFailed(message, reason="out_of_memory", memory=self.bounds.memory)


def _unless_settled(settle: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a way to settle a future that does nothing if it was cancelled just before."""

    def settle_once(outcome: Any) -> None:
        with suppress(InvalidStateError):
            settle(outcome)

    return settle_once


def _context(preload: tuple[str, ...]) -> Any:
    """Return the way to make clean processes: forked from a server of their own, or started anew where there is none.

    Never forked from this process: it has threads, and a database open.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload])
    return context


def _enter(function: str | Callable[..., Any], args: tuple[Any, ...], memory: float, preload: tuple[str, ...]) -> Any:
    """In the worker: run the function within the bounds, and say what came of it in what can be pickled."""
    _silence()
    harden()
    threading.Thread(target=_end_with_caller, daemon=True).start()
    with suppress(AttributeError, OSError):  # not everywhere
        os.nice(NICE)
    try:
        for name in preload:  # there already, but where processes start anew
            import_module(name)
        with suppress(ImportError, OSError, ValueError):  # a system without such limits has none
            limit_memory(memory)
        called = resolve_name(function) if isinstance(function, str) else function
        return "value", called(*args)
    except LoradarError as error:
        return "error", error.to_dict()
    except MemoryError:
        return "memory", None
    except Exception as error:  # noqa: BLE001 - the edge of the process
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        return ("memory", None) if "allocate memory" in said else ("crash", said)


def _end_with_caller() -> None:
    """End this process when the one that started it is gone: nobody is left who would end it in time."""
    caller = multiprocessing.parent_process()
    if caller:
        caller.join()
        os._exit(1)


def _silence() -> None:
    """Let nothing that is printed in here reach the caller's terminal or log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _nothing() -> None:
    """The task that starts the server of processes."""
