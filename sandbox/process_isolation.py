"""Isolate worker processes from their caller: a clean environment, no new privileges, no streams, limited memory.

A worker runs its task by :func:`run_task`; the service calls :func:`hide_from_workers`.
"""

import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ctypes import CDLL, Structure, byref, c_int32, c_uint32, c_uint64, c_ulong, sizeof
from importlib import import_module
from multiprocessing import util
from pkgutil import resolve_name
from threading import Lock, Thread, get_ident
from typing import Any

from ..errors import LoradarError

ALLOWED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME", "TORCH_HOME"),
        *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"),
        *("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
"""Variables that a worker receives: locations of programs, caches, certificates and the hub. A proxy is needed to reach
the hub; its address should hold no password."""

ALLOWED_PREFIXES = ("LC_", "PYTHON", "OMP_", "KMP_", "MKL_", "OPENBLAS_")

SET = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
"""Variables set for every worker: it works for other people, never with the account logged in on this machine."""

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38

_GIBIBYTE = 1 << 30

_SLICE = 100_000
"""Nanoseconds after which a process that woke up takes over a processor from a worker; by default they are millions."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call, which the C library has no function for."""

_LOCK = Lock()


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of an environment that a worker may have."""
    kept = {name: value for name, value in environment.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)}
    return kept | SET


@contextmanager
def clean_spawns(nice: int = 0) -> Iterator[None]:
    """Give every process that multiprocessing starts from this thread, inside the context, a clean environment.

    Above a ``nice`` of 0 they also give way to this one: to import libraries takes the server process seconds, and each
    fork of it tens of milliseconds in the kernel.

    multiprocessing starts its fork server with the environment of the caller and takes no other. Changing
    ``os.environ`` meanwhile would race with threads that read it, so the function that starts processes is replaced;
    other threads get the original.
    """
    with _LOCK:
        original, thread = util.spawnv_passfds, get_ident()

        def spawn(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
            if get_ident() != thread:
                return int(original(path, args, passfds))
            process = subprocess.Popen(  # noqa: S603 - multiprocessing's own command
                [*args], executable=path, pass_fds=passfds, env=clean_environment(), restore_signals=False
            )
            process.returncode = 0  # multiprocessing waits for it, by its number
            give_way(nice, process.pid)
            return process.pid

        util.spawnv_passfds = spawn
        try:
            yield
        finally:
            util.spawnv_passfds = original


def run_task(
    function: str | Callable[..., Any], args: tuple[Any, ...], memory: float, preload: Sequence[str], nice: int
) -> tuple[str, Any]:
    """Run a task in its worker and return (kind of outcome, outcome), both picklable."""
    harden(nice)
    try:
        for name in preload:  # imported already, unless this process started from nothing
            import_module(name)
        with suppress(ImportError, OSError, ValueError):  # a system without such limits
            limit_memory(memory)
        called = resolve_name(function) if isinstance(function, str) else function
        return "value", called(*args)
    except LoradarError as error:
        return "error", error.to_dict()
    except MemoryError:
        return "memory", None
    except Exception as error:  # noqa: BLE001 - the edge of the process
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        return ("memory", None) if "allocate memory" in cause else ("crash", cause)


def harden(nice: int) -> None:
    """Isolate this worker process from its caller, and end it when the caller ends.

    Its secret variables go, its standard streams lead nowhere, and it gains no privileges.

    Args:
        nice: As for ``give_way``.
    """
    kept = clean_environment()
    for name in [*os.environ]:
        if name not in kept:
            del os.environ[name]
    os.environ.update(kept)
    os.umask(0o077)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    caller = multiprocessing.parent_process()
    give_way(nice, caller=caller.pid or 0 if caller else 0)

    def end_with_caller() -> None:  # no other process would end this one in time
        if caller:
            caller.join()
            os._exit(1)

    Thread(target=end_with_caller, daemon=True).start()


class _Attributes(Structure):
    """Linux' ``struct sched_attr``."""

    _fields_ = (
        ("size", c_uint32),
        ("policy", c_uint32),
        ("flags", c_uint64),
        ("nice", c_int32),
        ("priority", c_uint32),
        ("runtime", c_uint64),
        ("deadline", c_uint64),
        ("period", c_uint64),
    )


def give_way(nice: int, pid: int = 0, caller: int = 0) -> None:
    """Give a process a priority below that of its caller, and let others take over the processor from it at once.

    Priority decides about shares over a longer time; on Linux 6.12 and later a short slice ends turns within a fraction
    of a millisecond. ``SCHED_IDLE`` gives way as well, and starves on a busy machine.

    Args:
        nice: How far its priority is below that of its caller; at 0 it has that of its caller, as far as this process
            may raise it.
        pid: The process; 0 is this one.
        caller: The process of its caller; 0 is this one.
    """
    with suppress(AttributeError, OSError):  # not on every system
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, caller) + nice)
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or not sys.platform.startswith("linux"):
        return
    policy, slice_ = (os.SCHED_BATCH, _SLICE) if nice else (os.SCHED_OTHER, 0)
    attributes = _Attributes(
        size=sizeof(_Attributes), policy=policy, nice=os.getpriority(os.PRIO_PROCESS, pid), runtime=slice_
    )
    with suppress(OSError, AttributeError):
        CDLL(None).syscall(number, pid, byref(attributes), 0)


def limit_memory(gigabytes: float) -> None:
    """Limit the further allocations of this process; shared libraries do not count.

    Raises:
        ImportError, OSError, ValueError: If the system has no such limit.
    """
    import resource  # noqa: PLC0415 - POSIX only

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file, no Path
        pages = int(file.read().split()[5])
    limit = pages * resource.getpagesize() + int(gigabytes * _GIBIBYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide_from_workers() -> None:
    """Keep other processes of this user from reading the environment and the memory of this one (Linux)."""
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process; other systems than Linux have none."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # a C library without it
        CDLL(None).prctl(option, c_ulong(value), c_ulong(0), c_ulong(0), c_ulong(0))
