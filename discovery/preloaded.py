"""The imports and settings of the server process that forks workers.

Import it for its effect, in that process alone. A worker inherits the libraries imported here, and the caches that the
first scans fill.
"""

import ctypes
import gc
from contextlib import suppress
from importlib import import_module

import torch

from ..data import read_facts
from ..errors import LoradarError
from .scanner import scan_built
from .sources import quiet_libraries

_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 20  # malloc.h; bytes

quiet_libraries()
torch.set_num_threads(1)  # a fork of a process with running pool threads would wait for them for ever
# Map large allocations separately, so that freeing one also returns its addresses, which count for a limit. glibc
# otherwise keeps freed pieces in a heap that only shrinks from its end; other libraries have no such option.
with suppress(OSError, AttributeError):
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
for module in read_facts("workers.toml")["import"]:
    with suppress(ImportError):
        import_module(module)
for reference in read_facts("workers.toml")["scan"]:
    with suppress(LoradarError):  # a library that is not installed
        scan_built(reference)
gc.collect()
gc.freeze()  # a collection in a worker would touch, and so copy, every page that it shares with the server
gc.set_threshold(50_000, 20, 20)  # a scan makes many objects and drops them at once
