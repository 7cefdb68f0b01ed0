"""Answers a client may keep: a strong ``ETag`` over the bytes, and 304 when the client has them already."""

from hashlib import sha256
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

CACHE_CONTROL = "public, max-age=60"
"""A minute: new revisions are rare, and every answer can be asked for again by its tag."""


def cached_json(request: Request, body: dict[str, Any]) -> Response:
    """Return the body as JSON, or 304 without it if ``If-None-Match`` names its tag."""
    return cached(request, JSONResponse(body))


def cached(request: Request, response: Response) -> Response:
    """Return a response with its tag, or 304 without its body if ``If-None-Match`` names that."""
    return _tagged(request, response, f'"{sha256(bytes(response.body)).hexdigest()[:32]}"', CACHE_CONTROL)


def tagged_json(request: Request, body: dict[str, Any], tag: str, cache_control: str) -> Response:
    """Return the body as JSON under a tag of its own, or 304 without it if ``If-None-Match`` names the tag."""
    return _tagged(request, JSONResponse(body), tag, cache_control)


def _tagged(request: Request, response: Response, tag: str, cache_control: str) -> Response:
    headers = {"ETag": tag, "Cache-Control": cache_control}
    if names_tag(request.headers.get("If-None-Match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    response.headers.update(headers)
    return response


def names_tag(condition: str, tag: str) -> bool:
    """Tell whether an ``If-None-Match`` header names a tag; a weak one does too (RFC 9110, 13.1.2)."""
    named = {part.strip().removeprefix("W/") for part in condition.split(",")}
    return tag in named or "*" in named
