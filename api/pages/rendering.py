"""Render pages: templates, links, headers, and the declaration of a page with its JSON twin."""

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from ..dependencies import cached
from ..negotiation import prefers_page
from . import assets
from .filters import FILTERS

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every page: nothing inline and nothing from elsewhere is run, shown or sent to."""

NAVIGATION = (
    ("/architectures", "Browse"),
    ("/compare", "Compare"),
    ("/scan", "Scan yours"),
    ("/submissions", "Submissions"),
    ("/audit", "Audit"),
    ("/placement", "Placement"),
    ("/docs", "Docs"),
)
"""Path and label of the pages in the header of each page."""


class PageRoute(APIRoute):
    """A route that is not there for a client that prefers JSON; another route may have its path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the route answers a request."""
        if scope["type"] == "http" and scope["method"] == "GET" and not prefers_page(scope):
            return Match.NONE, {}
        return super().matches(scope)


class PageRouter(APIRouter):
    """A router of pages.

    Attributes:
        twins: Path templates of its pages, each with that of its JSON twin.
    """

    def __init__(self) -> None:
        super().__init__(include_in_schema=False, route_class=PageRoute)
        self.twins: dict[str, str] = {}

    def page(self, path: str, *, twin: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the page at a path, whose JSON twin has the same parameters: ``/v1/usage/{library}/{name}``."""
        self.twins[path] = twin
        return self.get(path, response_class=HTMLResponse)


@cache
def environment() -> Environment:
    """Return the templates: every value is escaped, and an undefined one is an error."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= FILTERS
    return env


def join_link(root: str, *parts: object, **query: object) -> str:
    """Return the link to a path: the first part as it stands, the others as one segment each; ``None`` is left out."""
    path = root + str(parts[0]) + "".join("/" + quote(str(part), safe="") for part in parts[1:])
    given = [(name, value) for name, value in query.items() if value is not None]
    return path + ("?" + urlencode(given, doseq=True) if given else "")


def render(request: Request, template: str, /, **context: Any) -> str:
    """Return the text of a page.

    Templates extend ``base.html`` and write links to pages as ``link("/architectures", library, name, rank=8)`` and
    those to static files as ``static("app.css")``: both work under a root path.
    """
    root = str(request.scope.get("root_path", ""))
    scope = {
        "link": lambda *parts, **query: join_link(root, *parts, **query),
        "static": lambda name: join_link(root, assets.path_of(name)),
        "navigation": NAVIGATION,
        "path": request.url.path.removeprefix(root),
        "twin": _find_twin(request, root),
        "q": "",
    }
    return environment().get_template(template).render(scope | context)


def _find_twin(request: Request, root: str) -> str | None:
    """Return the link to the JSON of a page, with the query of the page."""
    route = request.scope.get("route")
    twin: str | None = request.app.state.twins.get(getattr(route, "path", None))
    if twin is None:
        return None
    path = twin.format(**{name: quote(str(value), safe="") for name, value in request.path_params.items()})
    query = request.url.query
    return root + path + (f"?{query}" if query else "")


def page(request: Request, template: str, /, **context: Any) -> Response:
    """Return a page that depends on the registry and the path and query alone: it is rendered once per serial."""
    return cached(request, HTMLResponse(render(request, template, **context), headers=HEADERS))


def fresh_page(request: Request, template: str, /, *, status_code: int = HTTPStatus.OK, **context: Any) -> Response:
    """Return a page that depends on the person or the moment: it is stored nowhere."""
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return HTMLResponse(render(request, template, **context), status_code, headers)


TITLES = {
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.UNPROCESSABLE_ENTITY: "That request does not work",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests",
    HTTPStatus.SERVICE_UNAVAILABLE: "Unavailable for the moment",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something failed here",
}


def error_page(request: Request, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return the page of an error, from its code, message and details, with the near names as links."""
    near = [str(name) for name in error["details"].get("near", ())]
    library = request.path_params.get("library")
    message = error["message"]
    if error["code"] == "not_found":  # the framework's: its words are for programs
        message = f"There is no page at {request.url.path}."
    title = TITLES.get(HTTPStatus(status)) or HTTPStatus(status).phrase
    context = {"status": status, "title": title, "message": message, "error": error, "near": near}
    answer = fresh_page(request, "error.html", status_code=status, library=library, **context)
    answer.headers.update(headers)
    return answer
