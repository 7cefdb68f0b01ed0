"""``/docs`` and ``/llms.txt``: how people, programs and agents use this service."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import Response

from ..dependencies import OpenRegistry, cached
from .rendering import PageRouter, page, render

router = PageRouter()
files = APIRouter(include_in_schema=False)


@router.page("/docs", twin="/openapi.json")
def show_guide(request: Request) -> Response:
    """Return the guide of the service, with its routes as they are described."""
    return page(request, "guide.html", operations=list_operations(request))


@files.get("/llms.txt")
def show_for_agents(request: Request, registry: OpenRegistry) -> Response:
    """Return the guide for agents (llmstxt.org)."""
    counts = registry.info().counts
    text = render(request, "llms.txt", operations=list_operations(request), counts=counts)
    return cached(request, Response(text, media_type="text/plain; charset=utf-8"))


def list_operations(request: Request) -> list[dict[str, Any]]:
    """Return method, path, summary and tag of every operation of the API, sorted by path.

    From the routes: to make the OpenAPI document takes a second, and 12 MB for good.
    """
    routes = (each for each in iter_route_contexts(request.app.routes) if isinstance(each.original_route, APIRoute))
    described = sorted((each for each in routes if each.include_in_schema), key=lambda each: str(each.path_format))
    return [
        {"method": method, "path": each.path_format, "summary": each.summary, "tag": (each.tags or [""])[0]}
        for each in described
        for method in sorted(each.methods or ())
    ]
