"""One shape for every error, whoever raises it: ``{"error": {"code", "message", "details"}}``."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ..errors import InvalidRequest, LoradarError

VALUE_LENGTH = 100
"""Longest piece of a bad value that is sent back."""


def add_error_handlers(app: FastAPI) -> None:
    """Let the application answer every error in the one shape."""
    app.add_exception_handler(LoradarError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def _known(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LoradarError)  # noqa: S101 - registered for nothing else; this tells mypy
    return _answer(error.status, error.to_dict())


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    fields = [_field(problem) for problem in error.errors()]
    said = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
    message = f"The request has a bad field: {said}. See /openapi.json."
    return _known(request, InvalidRequest(message, fields=fields))


def _field(problem: dict[str, Any]) -> dict[str, str]:
    where = ".".join(str(part) for part in problem["loc"])
    return {"field": where, "problem": problem["msg"], "value": str(problem.get("input"))[:VALUE_LENGTH]}


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    phrase = HTTPStatus(error.status_code).phrase
    message = f"{phrase}: {request.method} {request.url.path}. What there is: /openapi.json."
    details = {"method": request.method, "path": request.url.path}
    return _answer(error.status_code, _body(phrase.lower().replace(" ", "_"), message, details), error.headers)


def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
    """Answer without a word about the cause, which the server logs."""
    message = "The service failed; the cause is in its log. Trying again may help."
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, _body("internal_error", message, {}))


def _body(code: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


def _answer(status: int, body: dict[str, Any], headers: Any = None) -> JSONResponse:
    return JSONResponse(body, status, {**(headers or {}), "Cache-Control": "no-store"})
