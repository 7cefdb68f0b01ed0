"""Bounds on the time and the memory of a worker process."""

import os
from dataclasses import dataclass, field

from ..errors import InvalidRequest

_GIGABYTE = 1 << 30


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


def limit_memory(gigabytes: float) -> None:
    """Limit the further allocations of this process; shared libraries do not count.

    Raises:
        ImportError, OSError, ValueError: If the system has no such limit.
    """
    import resource  # noqa: PLC0415 - POSIX only

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file, no Path
        pages = int(file.read().split()[5])
    limit = pages * resource.getpagesize() + int(gigabytes * _GIGABYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
