"""Return and document every error in one shape: ``{"error": {"code", "message", "details"}}``."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic.dataclasses import dataclass
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from ..error_body import ErrorBody
from ..errors import DatabaseBusy, DatabaseUnusable, InvalidRequest, LoradarError, NotAuthenticated, TooLarge
from ..validation.text import describe_problem
from .negotiation import prefers_page

LOGGER = logging.getLogger("loradar.api")

VALUE_LENGTH = 100
"""Characters of a bad value that are sent back."""

MOST_FIELDS = 20
"""Bad fields that are reported: a list of a million may be wrong in a million places."""

FORMS = ("statement", "shorthand")
"""Internal names of the two forms of a statement, left out of field paths: no client knows them."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers that return every error in the one shape."""

    @app.exception_handler(LoradarError)
    async def handle_loradar_error(request: Request, error: LoradarError) -> Response:
        if isinstance(error, DatabaseBusy):
            LOGGER.warning("%s", error.message)
        elif isinstance(error, DatabaseUnusable):  # the URL and the driver's message are for the operator alone
            LOGGER.error("%s", error.message)
            message = "The registry's database is unavailable; the cause is in the service's log. Try again later."
            error = DatabaseUnusable(message)
        return error_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(request: Request, error: RequestValidationError) -> Response:
        fields = [_describe_field(problem) for problem in error.errors()[:MOST_FIELDS]]
        listed = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
        message = f"The request has a bad field: {listed}. See /openapi.json."
        return error_response(request, InvalidRequest(message, fields=fields))

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        return http_error_response(request, error)

    @app.exception_handler(Exception)
    async def handle_unexpected(request: Request, _error: Exception) -> Response:
        # Without the cause, which the server logs: it may hold secrets.
        message = "The service failed; the cause is in its log. Trying again may help."
        return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, _body("internal_error", message, {}))


def error_response(request: Request, error: LoradarError) -> Response:
    """Return the response to a loradar error: its status, body and headers."""
    headers = {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="loradar"'
    if "retry_after" in error.details:
        headers["Retry-After"] = str(int(error.details["retry_after"]))
    return _response(request, error.status, error.to_dict(), headers)


def http_error_response(request: Request, error: HTTPException) -> Response:
    """Return the response to an error of the framework."""
    phrase = HTTPStatus(error.status_code).phrase
    message = error.detail
    if message == phrase:
        message = f"{phrase}: {request.method} {request.url.path}. See /openapi.json for what exists."
    code = TooLarge.code if error.status_code == TooLarge.status else phrase.lower().replace(" ", "_")
    details = {"method": request.method, "path": request.url.path}
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names the methods of one route alone
        routes = request.app.router.routes
        scopes = ((method, {**request.scope, "method": method}) for method in METHODS)
        allowed = [name for name, scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]
        headers["Allow"] = ", ".join(allowed)
    return _response(request, error.status_code, _body(code, message, details), headers)


def _describe_field(problem: dict[str, Any]) -> dict[str, str]:
    """Return the path of a bad field, the problem in words and, unless it is missing, its value."""
    path = [str(part) for part in problem["loc"]]
    if path[1:2] and path[1] in FORMS:
        del path[1]
    field = {"field": ".".join(path)[:VALUE_LENGTH], "problem": describe_problem(problem)}
    return field if problem["type"] == "missing" else field | {"value": str(problem.get("input"))[:VALUE_LENGTH]}


def _body(code: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def _response(
    request: Request, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    request.state.code = body["error"]["code"]
    headers = {**(headers or {}), "Cache-Control": "no-store"}
    if prefers_page(request.scope):
        answer: Response = request.app.state.error_page(request, status, body["error"], headers)
        return answer
    return JSONResponse(body, status, headers)


Responses = dict[int | str, dict[str, Any]]

_RETRY = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 0}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "The accepted scheme: a bearer token", "schema": {"type": "string"}}}
_HEADERS: dict[int, dict[str, Any]] = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY}

_DOCUMENTED: dict[int, tuple[str, str, str, dict[str, Any]]] = {
    400: (
        "The reference is invalid, or not scanned for others",
        "invalid_reference",
        "file:/etc/passwd is not scanned for others: it may be any code or file. Schemes: 'hub', 'transformers', ...",
        {"reference": "file:/etc/passwd", "schemes": ["hub", "transformers", "timm", "diffusers"]},
    ),
    401: (
        "The token is missing or invalid",
        "not_authenticated",
        "This needs a token: send 'Authorization: Bearer lrd_...'; an admin makes one: loradar token create.",
        {},
    ),
    403: (
        "The token's role, or its owner, may not do this",
        "not_allowed",
        "This needs the role 'reviewer'; the token of 'ada' has 'contributor'. Ask an admin.",
        {"needs": "reviewer", "role": "contributor"},
    ),
    404: (
        "Not found; near names are in the details",
        "not_registered",
        "Nothing is registered for transformers:olmo2. Scan it with: loradar scan olmo2 --store.",
        {"name": "olmo2", "near": [], "library": "transformers"},
    ),
    409: (
        "Its state does not allow this",
        "conflict",
        "Submission 7 is published, so it cannot be reviewed. Only what needs a review can.",
        {"submission_id": 7, "status": "published"},
    ),
    412: (
        "It has changed since the version that `If-Match` names",
        "stale_version",
        "Submission 7 is at version 3, not 2: read it again, then decide.",
        {"version": 3, "given": 2},
    ),
    413: (
        "The body exceeds the limit",
        "too_large",
        "The request body exceeds the limit of 1048576 bytes: send less, or send it in parts.",
        {"method": "POST", "path": "/v1/submissions"},
    ),
    415: (
        "The body is not declared as JSON",
        "unsupported_media_type",
        "Unsupported Content-Type 'text/plain': send application/json.",
        {"method": "POST", "path": "/v1/submissions"},
    ),
    422: (
        "A field of the request is missing or out of bounds",
        "invalid_request",
        "The request has a bad field: query.limit: Input should be a valid integer, not 'x'. See /openapi.json.",
        {
            "fields": [
                {
                    "field": "query.limit",
                    "problem": "Input should be a valid integer, not 'x'",
                    "value": "x",
                }
            ]
        },
    ),
    429: (
        "The rate limit is exceeded",
        "too_many_requests",
        "More than 600 requests from your address within a minute: try again in 17 s.",
        {"retry_after": 17, "limit": 600, "policy": "address"},
    ),
    500: (
        "The service failed",
        "internal_error",
        "The service failed; the cause is in its log. Trying again may help.",
        {},
    ),
    501: (
        "The service lacks an optional dependency",
        "missing_extra",
        "'torch' is not installed. Install it with: pip install 'loradar[scan]'",
        {"package": "torch", "extra": "scan"},
    ),
    502: (
        "The hub lacks it, denies it, or does not answer",
        "hub_failed",
        "The hub has no repo 'org/nothing'. Look for it on the hub's own pages.",
        {"repo": "org/nothing"},
    ),
    503: (
        "The registry's database is unavailable or busy, or no worker is free",
        "database_unusable",
        "The registry's database is unavailable; the cause is in the service's log. Try again later.",
        {},
    ),
}


_BODY = dataclass(ErrorBody, frozen=True)
"""The same class to pydantic, which keeps its schema, and would make it anew for each error of each route."""

_BODY.__doc__ = ErrorBody.__doc__


def error_responses(*statuses: int) -> Responses:
    """Return the documentation of the errors with these statuses, for a route's ``responses``."""
    responses: Responses = {}
    for status in statuses:
        description, code, message, details = _DOCUMENTED[status]
        content = {"application/json": {"example": _body(code, message, details)}}
        responses[status] = {"model": _BODY, "description": description, "content": content}
        responses[status] |= {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return responses


ALWAYS = error_responses(422, 429, 500, 503)
"""Errors of every route."""

NOT_FOUND = error_responses(404)
WRITES = error_responses(401, 403, 413, 415)
"""Errors of routes that take a token and a body."""
