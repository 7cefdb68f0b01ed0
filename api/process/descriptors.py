"""Keep the connections of a process within its file descriptors, and log once when they do not suffice."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LOGGER = logging.getLogger("loradar.api")

MOST = 65_536
"""Descriptors that a process raises its limit to, where it may."""

RESERVED = 160
"""Descriptors for the database, its threads, workers, and for connections that are about to be turned away."""

TURNED_AWAY = 32
"""Connections beyond the limit that get a response; the next are closed without one."""

EVERY = 60.0
"""Seconds between two lines about one shortage."""

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Descriptors:
    """The number of connections that a process may have.

    Args:
        count: Counts a connection that is turned away.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        limit = raise_limit()
        self.most = max(limit - RESERVED, limit // 4)
        self._count = count
        self._logged_at = -EVERY

    def turn_away(self, connections: int) -> None:
        """Note a connection beyond the limit.

        Args:
            connections: Those that are open.
        """
        self._count()
        self.log_shortage(f"{connections} connections are open, of at most {self.most}")

    def log_shortage(self, reason: str) -> None:
        """Log that connections are turned away, at most once in a while."""
        now = time.monotonic()
        if now - self._logged_at >= EVERY:
            self._logged_at = now
            LOGGER.error(
                "%s: new connections get 503 or are closed; lines like this one follow every %g s at most",
                reason,
                EVERY,
            )

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an exception of the event loop: one of a shortage is logged once, not at each attempt to accept."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _SHORTAGE:
            self.log_shortage(f"the process has no more file descriptors or memory for sockets ({error.strerror})")
        else:
            loop.default_exception_handler(context)


def raise_limit() -> int:
    """Raise the limit of descriptors of this process as far as it may, and return it."""
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = MOST if hard == infinite else min(hard, MOST)
    if soft != infinite and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return MOST if soft == infinite else min(soft, MOST)
