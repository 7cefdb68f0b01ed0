"""Giving memory back between large computations. Where the C library is not glibc, its own way has to do."""

import ctypes
import gc
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20


def map_large() -> None:
    """Have what is large mapped apart, so that freeing it gives back its addresses too, which a limit counts.

    glibc raises its threshold with what is freed, and then keeps large pieces in a heap that only shrinks from its end.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Free what only cycles hold, and return freed memory to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
