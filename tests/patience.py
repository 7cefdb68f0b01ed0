"""Bounds that end a hang: an event decides the outcome of a test, never how fast the machine is."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "LORADAR_TEST_PATIENCE"
"""Environment variable by which every bound is multiplied, for a machine slower than any."""

HANG = 300.0
"""Seconds after which what has not come is taken for a hang; on an idle machine everything comes within a few."""

_INTERVAL = 0.02
OVER_HTTP = 0.5
"""Interval for a condition that sends a request: a slow machine must not use up the rate limit of its address."""


def patience(seconds: float = HANG) -> float:
    """Return a bound in seconds, scaled by the environment."""
    return seconds * float(os.environ.get(VARIABLE, "1"))


def wait_until(condition: Callable[[], T], awaited: str = "the event", interval: float = _INTERVAL) -> T:
    """Return the first true value of a condition.

    Args:
        condition: Called again and again; whatever it raises is raised.
        awaited: What is waited for, in words, for the error.
        interval: Seconds between two calls.
    """
    end = time.monotonic() + patience()
    while not (value := condition()):
        assert time.monotonic() < end, f"{awaited} did not come within {patience():g} s"
        time.sleep(interval)
    return value
