"""``/``: one search box, what is covered, and the latest changes."""

from fastapi import Request
from starlette.responses import Response

from ..dependencies import OpenRegistry
from .rendering import PageRouter, page

MOST_CHANGES = 8

router = PageRouter()


@router.page("/", twin="/")
def show_home(request: Request, registry: OpenRegistry) -> Response:
    """Return the page at which most people arrive."""
    info = registry.info()
    changes = registry.list_changes(max(0, info.serial - MOST_CHANGES), MOST_CHANGES)
    return page(request, "home.html", info=info, changes=changes[::-1])
