"""Run units of work in parallel with joblib: in threads or processes of this machine, or on a cluster of Dask.

Where a worker dies, its units run again; a unit that workers keep dying of is reported, and the others are not lost.
A unit must therefore have the same effect if it runs twice. For untrusted models there is ``Sandbox``: its workers
have bounds.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from threading import Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import InvalidRequest
from ..extras import require
from .pool import PRELOAD, Bounds, Sandbox

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
U = TypeVar("U")

BACKENDS: dict[str, str] = {"loky": "loky", "threads": "threading", "dask": "dask"}
"""Backends by name, with joblib's name for each."""

MOST_LOSSES = 2
"""Times that workers may die without any unit done in between, before the units left run one by one."""

CONNECT_SECONDS = 20
WATCH_SECONDS = 1.0
"""How often a worker looks whether its parent is there."""

MOST_THREADS = 256
"""Threads of one worker of a cluster."""


class Workers:
    """Workers for units of work; as a context manager it closes its connection to a cluster.

    Args:
        backend: ``loky`` (processes), ``threads`` or ``dask``.
        count: Units that run at once; on Dask at most the threads of the cluster, which is the default there.
        scheduler: Address of Dask's scheduler: ``tcp://host:8786``.

    Attributes:
        count: Units that run at once.
        are_local: Whether the workers are of this machine.

    Raises:
        InvalidRequest: If the backend is unknown, the scheduler is missing or out of reach, or its workers have
            another version of loradar.
        MissingExtra: If joblib or distributed is not installed.
    """

    def __init__(self, backend: str = "loky", count: int | None = None, scheduler: str | None = None) -> None:
        require("scan", "joblib")
        if backend not in BACKENDS:
            message = f"Unknown backend {backend!r}. Backends: {', '.join(BACKENDS)}."
            raise InvalidRequest(message, backend=backend)
        if (backend == "dask") != (scheduler is not None):
            way_out = "--backend dask --scheduler tcp://host:8786"
            message = f"A scheduler is for the backend dask, and dask needs one; the backend is {backend!r}: {way_out}."
            raise InvalidRequest(message, backend=backend, scheduler=scheduler)
        if count is not None and count < 1:
            raise InvalidRequest(f"Cannot run {count} units at once. Give 1 or more.", concurrency=count)
        self.are_local = backend != "dask"
        self._stack = ExitStack()
        self._settings: dict[str, Any] = {"backend": BACKENDS[backend]}
        self._client: Client | None = None
        threads = None
        if scheduler is not None:
            self._client = self._stack.enter_context(_connect(scheduler))
            self._settings["client"] = self._client
            threads = _check_cluster(self._client, scheduler)
        self.count = min(count or threads or 4, threads or (count or 4))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run_each(self, function: Callable[[T], U], units: Sequence[T]) -> Iterator[tuple[T, U | None]]:
        """Run a function on each unit, and yield (unit, result) as they complete; ``None`` if workers died of it.

        Args:
            function: A function at the top of a module; an error that it raises ends the run.
            units: Its arguments; they and the results must be picklable.
        """
        waiting = dict(enumerate(units))
        losses = 0
        while waiting and losses <= MOST_LOSSES:
            try:
                for number, result in self._run(function, waiting):
                    losses = 0
                    yield waiting.pop(number), result
            except _errors_of_lost_workers():
                losses += 1
        for number, unit in [*waiting.items()]:
            try:
                ((_, result),) = self._run(function, {number: unit})
            except _errors_of_lost_workers():
                yield unit, None
            else:
                yield unit, result

    def run_bounded(
        self,
        function: Callable[[str], U],
        names: Sequence[str],
        /,
        *,
        bounds: Bounds,
        preload: tuple[str, ...] = PRELOAD,
    ) -> Iterator[tuple[str, U | str]]:
        """Run a function on each name in a sandbox beside each worker; yield (name, result), or (name, reason).

        Args:
            function: As for ``Sandbox.run_each``.
            names: The argument of each run.
            bounds: Time and memory of each run.
            preload: As for ``Sandbox``.

        Raises:
            InvalidRequest: If the workers of the cluster may not start processes.
        """
        daemons: dict[str, bool] = self._client.run(_is_daemon) if self._client else {}
        if any(daemons.values()):
            way_out = "Start them with --no-nanny, or with DASK_DISTRIBUTED__WORKER__DAEMON=False"
            message = (
                f"The workers of the cluster may not start processes, which scans have their limits in. {way_out}."
            )
            raise InvalidRequest(message, workers=sorted(daemons))
        task = partial(_run_in_sandbox, function=function, bounds=bounds, preload=preload)
        for name, result in self.run_each(task, names):
            yield name, "The workers of the cluster died while they scanned it." if result is None else result

    def _run(self, function: Callable[[T], U], units: dict[int, T]) -> Iterator[tuple[int, U]]:
        from joblib import Parallel, delayed, parallel_config  # noqa: PLC0415 - an extra

        with parallel_config(**self._settings):
            # One unit in a task, and no more tasks at a time than units may run: both bound the rate of requests.
            run = Parallel(self.count, return_as="generator_unordered", batch_size=1, pre_dispatch=self.count)
        owner = os.getpid() if self.are_local else None
        yield from run([delayed(_run_numbered)(function, owner, *item) for item in units.items()])


def _run_numbered(function: Callable[[T], U], owner: int | None, number: int, unit: T) -> tuple[int, U]:
    if owner not in (None, os.getpid()):
        _end_with(owner)
    return number, function(unit)


@cache
def _end_with(owner: int | None) -> None:
    """End this process soon after its parent, which may be killed: joblib's workers would wait for work from it."""

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _errors_of_lost_workers() -> tuple[type[BaseException], ...]:
    """Return the errors by which joblib reports that workers died."""
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError  # noqa: PLC0415

    try:
        from distributed import KilledWorker  # noqa: PLC0415 - an extra
    except ImportError:
        return BrokenProcessPool, TerminatedWorkerError
    return BrokenProcessPool, TerminatedWorkerError, KilledWorker


def _connect(scheduler: str) -> "Client":
    require("cluster", "distributed")
    from distributed import Client  # noqa: PLC0415 - an extra

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"Dask's scheduler {scheduler!r} does not answer within {CONNECT_SECONDS} s ({error}). Is it running?"
        raise InvalidRequest(message, scheduler=scheduler) from error


def _check_cluster(client: "Client", scheduler: str) -> int:
    """Check that the workers of a cluster have the loradar of this process, and return the number of their threads."""
    ours = metadata.version("loradar")
    found: dict[str, str] = client.run(_find_version)
    other = next((f"{worker} has {version}" for worker, version in found.items() if version != ours), None)
    if not found or other:
        problem = f"worker {other}" if other else "there is none"
        message = f"The workers of {scheduler} need loradar {ours}, and {problem}. Start them: dask worker {scheduler}"
        raise InvalidRequest(message, scheduler=scheduler)
    return sum(client.ncores().values())


def _is_daemon() -> bool:
    return multiprocessing.current_process().daemon


def _run_in_sandbox(name: str, *, function: Callable[[str], U], bounds: Bounds, preload: tuple[str, ...]) -> U | str:
    ((_, outcome),) = _open_sandbox(bounds, preload).run_each(function, (name,))
    return outcome


@cache
def _open_sandbox(bounds: Bounds, preload: tuple[str, ...]) -> Sandbox:
    """Return the sandbox of this worker, which ends with it; the threads of the worker bound the tasks at a time."""
    return Sandbox(replace(bounds, workers=MOST_THREADS), preload=preload, nice=0)


def _find_version() -> str:
    try:
        return metadata.version("loradar")
    except metadata.PackageNotFoundError:
        return "none"
