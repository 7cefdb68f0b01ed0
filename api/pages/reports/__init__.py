"""Pages on what was compared, audited and measured."""

from . import audit, compare, placement

ROUTERS = (audit.router, compare.router, placement.router)
