"""``/docs`` and ``/llms.txt``: how people, programs and agents use this service."""

from typing import Any

from fastapi import APIRouter, Request
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
    """Return method, path, summary and description of every operation of the API, sorted by path."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    return [
        {"method": method.upper(), "path": path, "summary": each["summary"], "tag": each["tags"][0]}
        for path, methods in sorted(paths.items())
        for method, each in methods.items()
    ]
