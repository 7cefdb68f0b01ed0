"""Return every error in one shape: ``{"error": {"code", "message", "details"}}``."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from ..errors import DatabaseUnusable, InvalidRequest, LoradarError, NotAuthenticated, TooLarge
from ..validation.text import describe_problem

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
    app.add_exception_handler(LoradarError, _handle_loradar_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(Exception, _handle_unexpected)


def error_response(request: Request, error: LoradarError) -> JSONResponse:
    """Return the response to a loradar error: its status, body and headers."""
    headers = {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="loradar"'
    if "retry_after" in error.details:
        headers["Retry-After"] = str(int(error.details["retry_after"]))
    return _response(request, error.status, error.to_dict(), headers)


def http_error_response(request: Request, error: HTTPException) -> JSONResponse:
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


async def _handle_loradar_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LoradarError)  # noqa: S101 - registered for nothing else; for mypy
    if isinstance(error, DatabaseUnusable):  # the URL and the driver's message are for the operator alone
        LOGGER.error("%s", error.message)
        message = "The registry's database is unavailable; the cause is in the service's log. Try again later."
        error = DatabaseUnusable(message)
    return error_response(request, error)


async def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    fields = [_describe_field(problem) for problem in error.errors()[:MOST_FIELDS]]
    listed = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
    message = f"The request has a bad field: {listed}. See /openapi.json."
    return error_response(request, InvalidRequest(message, fields=fields))


def _describe_field(problem: dict[str, Any]) -> dict[str, str]:
    """Return the path of a bad field, the problem in words and, unless it is missing, its value."""
    path = [str(part) for part in problem["loc"]]
    if path[1:2] and path[1] in FORMS:
        del path[1]
    field = {"field": ".".join(path)[:VALUE_LENGTH], "problem": describe_problem(problem)}
    return field if problem["type"] == "missing" else field | {"value": str(problem.get("input"))[:VALUE_LENGTH]}


async def _handle_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return http_error_response(request, error)


async def _handle_unexpected(request: Request, _error: Exception) -> JSONResponse:
    """Return 500 without the cause, which the server logs."""
    message = "The service failed; the cause is in its log. Trying again may help."
    return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, _body("internal_error", message, {}))


def _body(code: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def _response(
    request: Request, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    request.state.code = body["error"]["code"]
    return JSONResponse(body, status, {**(headers or {}), "Cache-Control": "no-store"})
