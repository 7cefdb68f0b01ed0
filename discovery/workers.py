"""Scans in worker processes: forked once the library is imported, each architecture within bounds of its own."""

import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, cast

import torch
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from ..errors import LoradarError
from ..sandbox.bounds import Bounds, limit_memory
from ..sandbox.process_isolation import harden
from .facts.data_files import read_facts
from .meta_run.memory import map_large

T = TypeVar("T")

MOST_TASKS = 40
"""Tasks of a worker before another takes its place: what libraries keep for later adds up."""

PRELOADED = ("transformers", "timm", "diffusers")
"""Libraries that anything may be asked of."""


def work(
    task: Callable[[str], T], names: Sequence[str], library: str, bounds: Bounds, most_tasks: int = MOST_TASKS
) -> Iterator[tuple[str, T | str]]:
    """Run a task on every name and yield (name, result), or (name, reason) if it had to be ended, as they come.

    Args:
        task: A function that can be pickled; it runs in a worker.
        names: What to run it on.
        library: What is imported before the workers are forked.
        bounds: For each name.
        most_tasks: Names for one worker. What computed with real weights leaves its addresses in pieces, which count
            against the memory of what comes after it: one, then.
    """
    preload(library)
    with _pool(bounds, most_tasks) as pool:
        futures: dict[Any, str] = {pool.schedule(task, (name,), timeout=bounds.seconds): name for name in names}
        for future in as_completed(futures):
            yield futures[future], _outcome(cast("ProcessFuture[T | str]", future), bounds)


def preload(library: str) -> None:
    """Import what every architecture of a library needs, and keep the collector from touching (copying) it later."""
    torch.set_num_threads(1)  # a fork of a process whose thread pool has started would wait for those threads for ever
    for module in read_facts("workers.toml")["preload"].get(library, ()):
        with suppress(ImportError):
            import_module(module)
    gc.collect()
    gc.freeze()


@contextmanager
def _pool(bounds: Bounds, most_tasks: int) -> Iterator[ProcessPool]:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    start = partial(_start_worker, bounds.memory)
    pool = ProcessPool(bounds.workers, max_tasks=most_tasks, initializer=start, context=context)
    try:
        yield pool
    finally:  # all done, or nobody waits for the rest
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _start_worker(memory: float) -> None:
    harden()
    quiet_worker()
    with suppress(ImportError, OSError, ValueError):  # a system without such limits has none
        limit_memory(memory)


def quiet_worker() -> None:
    """Have a process that scans use one thread, give back large pieces of memory and collect seldom."""
    torch.set_num_threads(1)
    map_large()
    gc.set_threshold(50_000, 20, 20)  # a scan makes many objects and drops them at once


def _outcome(future: "ProcessFuture[T]", bounds: Bounds) -> T | str:
    error = future.exception()
    match error:
        case None:
            return future.result()
        case TimeoutError():
            return f"It was not scanned within {bounds.seconds:g} s."
        case ProcessExpired():
            return f"Its worker ended with exit code {error.exitcode} (a worker may take {bounds.memory:g} GiB)."
        case LoradarError():
            return error.message
        case MemoryError():
            return f"It takes more than {bounds.memory:g} GiB."
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
