"""Pages of comparisons, audits and measurements."""

from . import audit, compare, placement

ROUTERS = (audit.router, compare.router, placement.router)
