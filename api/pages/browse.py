"""``/architectures``: all architectures, narrowed by their properties."""

from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response

from ...domain.serving import list_engines
from ..dependencies import OpenRegistry
from ..routes.architectures import ArchitectureQuery
from .rendering import PageRouter, page

PER_PAGE = 60

TITLES = {
    "library": "Library",
    "task": "Task",
    "status": "Default targets",
    "peft": "PEFT's own entry",
    "method": "Method",
    "tower": "Tower",
    "engine": "Server",
}
"""Titles of the properties, in the order of the page."""

STATUSES = {
    "live": "proved live",
    "partial": "in part",
    "dead": "does not work",
    "unproven": "not proved",
    "none": "none",
}

router = PageRouter()


@router.page("/architectures", twin="/v1/architectures")
def show_architectures(
    request: Request, registry: OpenRegistry, query: Annotated[ArchitectureQuery, Depends()]
) -> Response:
    """Return a page of the architectures that have all the properties given."""
    found = registry.browsing.browse(query.properties, query.q, query.layer, query.after, PER_PAGE)
    labels = dict.fromkeys(("status", "peft"), STATUSES) | {"engine": {x.key: x.name for x in list_engines()}}
    context = {
        "found": found,
        "query": {**dict.fromkeys(TITLES), **query.properties, "layer": query.layer, "q": query.q or None},
        "titles": TITLES,
        "labels": labels,
        "part": query.q,
        "after": query.after,
    }
    return page(request, "browse.html", **context)
