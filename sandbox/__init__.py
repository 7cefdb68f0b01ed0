"""Run functions in worker processes within limits of time and memory.

Others may import ``Sandbox`` (the one pool of workers) and ``Bounds`` (how many there are, and what each task may
take). The tasks of the service, ``tasks``, are named by their dotted path and imported in the worker alone.
"""

from .pool import Bounds, Sandbox

__all__ = ["Bounds", "Sandbox"]
