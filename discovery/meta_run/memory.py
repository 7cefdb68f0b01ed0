"""Return memory to the system between large computations; only glibc supports it, elsewhere nothing is done."""

import ctypes
import gc
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20


def map_large() -> None:
    """Map large allocations separately, so that freeing one also returns its addresses, which count for a limit.

    glibc raises its threshold with the size of freed pieces, and then keeps large ones in a heap that only shrinks from
    its end.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Collect cycles, and return freed memory to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
