"""Pace the requests to a hub: a rate that all workers keep together, and the pauses that the hub requests.

Each of the units that run at once has an equal share of the rate, so the workers, which may be on other machines, need
not talk to each other. The pace is kept by hooks of huggingface_hub's HTTP session, so every request counts: also the
hops of a redirect, and the pages of a listing.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

TOO_MANY, UNAVAILABLE = 429, 503
PAUSE = 5.0
"""Seconds of a pause, if the hub requests one without its length."""


class Abandoned(BaseException):
    """The process that a unit works for is gone, so its result would be lost: no repo is at fault, and none goes on."""


class Pace:
    """The pace of one unit: at most one request per interval, the first after one interval.

    Args:
        interval: Seconds.
        owner: Process that the unit works for, if it is this one or its parent.

    Attributes:
        requests: Number of requests so far.
        paused: Seconds of the pause that the last response requested; 0 if it requested none.
    """

    def __init__(self, interval: float, owner: int | None = None) -> None:
        self._interval = interval
        self._next = time.monotonic() + interval
        self._owner = owner
        self.requests = 0
        self.paused = 0.0

    def wait(self) -> None:
        """Wait until the next request may be sent.

        Raises:
            Abandoned: If the owner has died.
        """
        time.sleep(max(0.0, self._next - time.monotonic()))
        if self._owner not in (None, os.getpid(), os.getppid()):
            raise Abandoned
        self._next = time.monotonic() + self._interval
        self.requests += 1

    def pause(self, seconds: float) -> None:
        """Send no request for some seconds."""
        self.paused = seconds
        self._next = max(self._next, time.monotonic() + seconds)


_CURRENT: ContextVar[Pace | None] = ContextVar("pace", default=None)


@contextmanager
def paced(pace: Pace) -> Iterator[None]:
    """Keep a pace with every request that huggingface_hub sends from this thread inside this context."""
    from huggingface_hub import get_session  # noqa: PLC0415 - an extra

    session = get_session()
    hooks = session.event_hooks
    if _before not in hooks["request"]:
        session.event_hooks = {"request": [*hooks["request"], _before], "response": [*hooks["response"], _after]}
    token = _CURRENT.set(pace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def _before(_request: Any) -> None:
    if pace := _CURRENT.get():
        pace.wait()


def _after(response: Any) -> None:
    if pace := _CURRENT.get():
        pace.paused = 0.0
        if response.status_code in (TOO_MANY, UNAVAILABLE):
            pace.pause(find_pause(response.headers))


def find_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds that a response requests to wait: by ``Retry-After``, or the window of its rate limit."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined] # noqa: PLC0415 - an extra

    stated = headers.get("retry-after", "").strip()
    if stated.isdecimal():
        return float(stated)
    try:
        moment = parsedate_to_datetime(stated)
    except ValueError:
        limit = parse_ratelimit_headers(headers)
        return float(limit.reset_in_seconds) if limit else PAUSE
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
