"""Giving memory back between large computations."""

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Free what only cycles hold, and return freed memory to the system.

    glibc keeps freed memory for later, in pieces that a limit of a process counts and the next large tensor may not fit
    into; other C libraries have no ``malloc_trim``.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
