"""One shape for every error, whoever raises it: ``{"error": {"code", "message", "details"}}``."""

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
from ..validation.field_errors import fault_in_words

LOGGER = logging.getLogger("loradar.api")

VALUE_LENGTH = 100
"""Longest piece of a bad value that is sent back."""

MOST_FIELDS = 20
"""Bad fields that are told of: a list of a million may be wrong in a million places."""

FORMS = ("statement", "shorthand")
"""What the two forms of a statement are called among us; no sender knows of these names."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def add_error_handlers(app: FastAPI) -> None:
    """Let the application answer every error in the one shape."""
    app.add_exception_handler(LoradarError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def answer_error(request: Request, error: LoradarError) -> JSONResponse:
    """Return the answer to an error of ours: its status, its shape, and the headers that belong to it."""
    return _answer(request, error.status, error.to_dict(), _headers_of(error))


def answer_http(request: Request, error: HTTPException) -> JSONResponse:
    """Return the answer to an error of the framework's, in our shape."""
    phrase = HTTPStatus(error.status_code).phrase
    message = error.detail
    if message == phrase:
        message = f"{phrase}: {request.method} {request.url.path}. What there is: /openapi.json."
    code = TooLarge.code if error.status_code == TooLarge.status else phrase.lower().replace(" ", "_")
    details = {"method": request.method, "path": request.url.path}
    return _answer(request, error.status_code, _body(code, message, details), _allowed(request, error))


def _headers_of(error: LoradarError) -> dict[str, str]:
    headers = {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="loradar"'
    if "retry_after" in error.details:
        headers["Retry-After"] = str(int(error.details["retry_after"]))
    return headers


def _allowed(request: Request, error: HTTPException) -> Mapping[str, str]:
    """Return the headers of an error; the framework names the methods of one route, but a path may have several."""
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        routes = request.app.router.routes
        asked = ((method, {**request.scope, "method": method}) for method in METHODS)
        allowed = [name for name, scope in asked if any(route.matches(scope)[0] is Match.FULL for route in routes)]
        headers["Allow"] = ", ".join(allowed)
    return headers


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LoradarError)  # noqa: S101 - registered for nothing else; this tells mypy
    if isinstance(error, DatabaseUnusable):  # where it is and what its driver says is for those who run the service
        LOGGER.error("%s", error.message)
        message = "The registry's database cannot be used now; the cause is in the service's log. Try again later."
        error = DatabaseUnusable(message)
    return answer_error(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    problems = error.errors()
    fields = [_field(problem) for problem in problems[:MOST_FIELDS]]
    said = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
    message = f"The request has a bad field: {said}. See /openapi.json."
    return answer_error(request, InvalidRequest(message, fields=fields))


def _field(problem: dict[str, Any]) -> dict[str, str]:
    place = [str(part) for part in problem["loc"]]
    if place[1:2] and place[1] in FORMS:
        del place[1]
    where = ".".join(place)[:VALUE_LENGTH]
    value = problem.get("input")
    said = {"field": where, "problem": fault_in_words(problem)}
    return said if problem["type"] == "missing" else said | {"value": str(value)[:VALUE_LENGTH]}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return answer_http(request, error)


async def _unexpected(request: Request, _error: Exception) -> JSONResponse:
    """Answer without a word about the cause, which the server logs."""
    message = "The service failed; the cause is in its log. Trying again may help."
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, _body("internal_error", message, {}))


def _body(code: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def _answer(
    request: Request, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    request.state.code = body["error"]["code"]
    return JSONResponse(body, status, {**(headers or {}), "Cache-Control": "no-store"})
