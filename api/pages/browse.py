"""``/architectures``: all architectures, narrowed by their properties."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from ...domain.serving import list_engines
from ..dependencies import OpenRegistry
from ..routes.architectures import (
    AfterQuery,
    EngineFacet,
    LayerFacet,
    LibraryFacet,
    MethodFacet,
    PartQuery,
    PeftFacet,
    StatusFacet,
    TaskFacet,
    TowerFacet,
)
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
def show_architectures(  # noqa: PLR0913 - the properties
    request: Request,
    registry: OpenRegistry,
    *,
    library: LibraryFacet = None,
    task: TaskFacet = None,
    status: StatusFacet = None,
    peft: PeftFacet = None,
    method: MethodFacet = None,
    tower: TowerFacet = None,
    engine: EngineFacet = None,
    layer: LayerFacet = None,
    q: PartQuery = "",
    after: AfterQuery = None,
) -> Response:
    """Return a page of the architectures that have all the properties given."""
    given: dict[str, Any] = {"library": library, "task": task, "status": status, "peft": peft}
    given |= {"method": method, "tower": tower, "engine": engine}
    wanted = {name: value for name, value in given.items() if value is not None}
    found = registry.browsing.browse(wanted, q, layer, after, PER_PAGE + 1)
    shown = found.page[:PER_PAGE]
    labels = dict.fromkeys(("status", "peft"), STATUSES) | {"engine": {x.key: x.name for x in list_engines()}}
    context = {
        "found": found,
        "shown": shown,
        "following": shown[-1].architecture.reference if len(found.page) > PER_PAGE else None,
        "query": {**given, "layer": layer, "q": q or None},
        "titles": TITLES,
        "labels": labels,
        "part": q,
        "after": after,
    }
    return page(request, "browse.html", **context)
