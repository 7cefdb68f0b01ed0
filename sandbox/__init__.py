"""sandbox *isolates*: it runs functions in worker processes within bounds of time and memory.

Others may import ``Sandbox`` (the workers), ``Bounds`` (what each task may take) and ``limit_memory``; the tasks
themselves, ``statement_checks`` and ``scan_requests``, are named by their dotted path and imported in the worker alone.
"""

from .bounds import Bounds, limit_memory
from .pool import Sandbox

__all__ = ["Bounds", "Sandbox", "limit_memory"]
