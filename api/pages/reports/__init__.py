"""Render comparisons, the audit of PEFT's entries, and measurements of placements."""

from . import audit_page, compare_page, placement_figures

ROUTERS = (audit_page.router, compare_page.router, placement_figures.router)
