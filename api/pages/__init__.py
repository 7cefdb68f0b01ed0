"""Render pages for browsers, at the paths where programs get JSON.

A page is one module with its template. It reads through the registry's public methods and is declared by
``PageRouter.page`` with the path of its JSON twin; ``ROUTERS`` lists them all.
"""

from . import architecture, assets, browse, guide, home, people, reports, scan, search

ROUTERS = (
    *architecture.ROUTERS,
    browse.router,
    guide.router,
    home.router,
    scan.router,
    search.router,
    *people.ROUTERS,
    *reports.ROUTERS,
)
"""The pages."""

FILES = (assets.router, *architecture.FILES, guide.files)
"""What pages load, and what others embed."""
