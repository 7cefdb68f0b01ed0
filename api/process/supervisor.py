"""Run a service in several processes that share a socket, and replace those that end."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir
from threading import Thread
from typing import Any

from ...errors import CannotServe

LOGGER = logging.getLogger("loradar.api")

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client keeps the counts of processes that are to be added up; it reads it when it is imported."""

READY_SECONDS = 120.0
"""Time for a new process to take requests."""

STOP_SECONDS = 45.0
"""Time for a process to end after it was told to; it is killed then."""

SHORT_LIFE = 5.0
"""A process that ends within so many seconds is replaced after a pause, which doubles each time."""

LONGEST_PAUSE = 30.0

Target = Callable[[Any, Connection], None]
"""Runs in a process with the arguments, and sends something over the connection once it takes requests."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(eq=False)
class Worker:
    """One process, when it was started and whether it takes requests."""

    process: Any
    ready: Connection
    started: float
    is_ready: bool = False


class Supervisor:
    """Keep processes running until this one gets SIGINT or SIGTERM; SIGHUP replaces them one after the other.

    Args:
        target: What each of them does.
        argument: What it does it with; picklable.
        count: How many there are.
    """

    def __init__(self, target: Target, argument: Any, count: int) -> None:
        self._target, self._argument, self._count = target, argument, count
        self._workers: list[Worker] = []
        self._pause = 1.0
        self._received: list[int] = []

    def run(self, on_ready: Callable[[], None]) -> None:
        """Run until a signal.

        Args:
            on_ready: Called once all processes take requests.

        Raises:
            CannotServe: If one of the first ends before it takes requests.
        """
        with _signals(self._received) as woken, _shared_metrics():
            try:
                for _ in range(self._count):
                    self._start()
                for worker in [*self._workers]:
                    if not self._becomes_ready(worker, woken):
                        if self._is_told_to_stop():
                            return
                        message = "A process of the service did not start; the cause is in the log."
                        raise CannotServe(message)
                on_ready()
                while not self._is_told_to_stop():
                    wait([woken, *(worker.process.sentinel for worker in self._workers)])
                    with suppress(BlockingIOError):
                        os.read(woken, 64)
                    self._replace_ended(woken)
                    if getattr(signal, "SIGHUP", None) in self._received:
                        self._received.remove(signal.SIGHUP)
                        self._replace_all(woken)
            finally:
                self._stop(self._workers)

    def _is_told_to_stop(self) -> bool:
        return bool({signal.SIGINT, signal.SIGTERM} & {*self._received})

    def _start(self) -> Worker:
        here, there = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=self._target, args=(self._argument, there), name="loradar-serve")
        process.start()
        there.close()
        worker = Worker(process, here, time.monotonic())
        self._workers.append(worker)
        return worker

    def _becomes_ready(self, worker: Worker, woken: int) -> bool:
        """Wait for a process to take requests; return whether it does."""
        end = time.monotonic() + READY_SECONDS
        while not worker.is_ready and not self._is_told_to_stop() and time.monotonic() < end:
            found = wait([worker.ready, woken], max(end - time.monotonic(), 0))
            if worker.ready in found:
                with suppress(EOFError, OSError):
                    worker.is_ready = bool(worker.ready.recv())
                break
        return worker.is_ready

    def _replace_ended(self, woken: int) -> None:
        for worker in [each for each in self._workers if not each.process.is_alive()]:
            if self._is_told_to_stop():
                return
            lived = time.monotonic() - worker.started
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if lived < SHORT_LIFE else 1.0
            code = worker.process.exitcode
            LOGGER.error("process %d of the service ended with exit code %s, and is replaced", worker.process.pid, code)
            self._forget(worker)
            if lived < SHORT_LIFE:
                wait([woken], self._pause)
            self._start()

    def _replace_all(self, woken: int) -> None:
        """Replace one process after the other, each once the new one takes requests."""
        for worker in [*self._workers]:
            new = self._start()
            if not self._becomes_ready(new, woken):
                LOGGER.error("a new process of the service did not start; the others stay")
                self._stop([new])
                return
            self._stop([worker])

    def _stop(self, workers: list[Worker]) -> None:
        """End processes, by force after a time or at a second signal."""
        ending = [*workers]
        for worker in ending:
            worker.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        told = len(self._received)
        while any(worker.process.is_alive() for worker in ending) and time.monotonic() < end:
            wait([worker.process.sentinel for worker in ending if worker.process.is_alive()], 0.2)
            if len(self._received) > told:
                break
        for worker in ending:
            if worker.process.is_alive():
                LOGGER.error("process %d of the service did not stop, and is killed", worker.process.pid)
                worker.process.kill()
            worker.process.join()
            self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        from prometheus_client import multiprocess  # noqa: PLC0415 - after the variable is set

        worker.ready.close()
        multiprocess.mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        with suppress(ValueError):
            self._workers.remove(worker)


@contextmanager
def _signals(received: list[int]) -> Iterator[int]:
    """Note the signals that this process gets, and yield a descriptor that can be read after each."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def note(number: int, _frame: object) -> None:
        received.append(number)
        with suppress(BlockingIOError):
            os.write(writing, b".")

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Let the processes keep their counts where each can add up those of all; remove those of killed services."""
    for left in Path(gettempdir()).glob("loradar-metrics-*-*"):
        with suppress(ValueError, OSError):
            if left.stat().st_uid == os.getuid() and not _is_running(int(left.name.split("-")[2])):
                rmtree(left)
    with TemporaryDirectory(prefix=f"loradar-metrics-{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        os.environ[METRICS_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[METRICS_VARIABLE]


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def end_with_supervisor() -> None:
    """End this process when its supervisor ends, even if that was killed: it would run on without one."""
    parent = multiprocessing.parent_process()

    def wait_for_end() -> None:
        if parent:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait_for_end, name="loradar-supervised", daemon=True).start()
