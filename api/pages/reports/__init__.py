"""Pages of comparisons, audits and measurements."""

from . import audit_page, compare_page, placement_figures

ROUTERS = (audit_page.router, compare_page.router, placement_figures.router)
