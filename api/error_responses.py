"""Document the errors of routes in OpenAPI: their shape, an example of each, and their headers."""

from typing import Any

from ..errors import ErrorBody

Responses = dict[int | str, dict[str, Any]]

_RETRY = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 0}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "The accepted scheme: a bearer token", "schema": {"type": "string"}}}

_DOCUMENTED: dict[int, tuple[str, str, str, dict[str, Any], dict[str, Any]]] = {
    400: (
        "The reference is invalid, or not scanned for others",
        "invalid_reference",
        "file:/etc/passwd is not scanned for others: it may be any code or file. Schemes: 'hub', 'transformers', ...",
        {"reference": "file:/etc/passwd", "schemes": ["hub", "transformers", "timm", "diffusers"]},
        {},
    ),
    401: (
        "The token is missing or invalid",
        "not_authenticated",
        "This needs a token: send 'Authorization: Bearer lrd_...'; an admin makes one: loradar token create.",
        {},
        _CHALLENGE,
    ),
    403: (
        "The token's role, or its owner, may not do this",
        "not_allowed",
        "This needs the role 'reviewer'; the token of 'ada' has 'contributor'. Ask an admin.",
        {"needs": "reviewer", "role": "contributor"},
        {},
    ),
    404: (
        "Not found; near names are in the details",
        "not_registered",
        "Nothing is registered for transformers:olmo2. Scan it with: loradar scan olmo2 --store.",
        {"name": "olmo2", "near": [], "library": "transformers"},
        {},
    ),
    409: (
        "Its state does not allow this",
        "conflict",
        "Submission 7 is published, so it cannot be reviewed. Only what needs a review can.",
        {"submission_id": 7, "status": "published"},
        {},
    ),
    412: (
        "It has changed since the version that `If-Match` names",
        "stale_version",
        "Submission 7 is at version 3, not 2: read it again, then decide.",
        {"version": 3, "given": 2},
        {},
    ),
    413: (
        "The body exceeds the limit",
        "too_large",
        "The request body exceeds the limit of 1048576 bytes: send less, or send it in parts.",
        {"method": "POST", "path": "/v1/submissions"},
        {},
    ),
    415: (
        "The body is not declared as JSON",
        "unsupported_media_type",
        "Unsupported Content-Type 'text/plain': send application/json.",
        {"method": "POST", "path": "/v1/submissions"},
        {},
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
        {},
    ),
    429: (
        "The rate limit is exceeded",
        "too_many_requests",
        "More than 600 requests from your address within a minute: try again in 17 s.",
        {"retry_after": 17, "limit": 600, "policy": "address"},
        _RETRY,
    ),
    500: (
        "The service failed",
        "internal_error",
        "The service failed; the cause is in its log. Trying again may help.",
        {},
        {},
    ),
    501: (
        "The service lacks an optional dependency",
        "missing_extra",
        "'torch' is not installed. Install it with: pip install 'loradar[scan]'",
        {"package": "torch", "extra": "scan"},
        {},
    ),
    502: (
        "The hub lacks it, denies it, or does not answer",
        "hub_failed",
        "The hub has no repo 'org/nothing'. Look for it on the hub's own pages.",
        {"repo": "org/nothing"},
        {},
    ),
    503: (
        "The registry's database is unavailable, or no worker is free",
        "database_unusable",
        "The registry's database is unavailable; the cause is in the service's log. Try again later.",
        {},
        _RETRY,
    ),
}


def error_responses(*statuses: int) -> Responses:
    """Return the documentation of the errors with these statuses, for a route's ``responses``."""
    return {status: _document(*_DOCUMENTED[status]) for status in statuses}


def _document(
    description: str, code: str, message: str, details: dict[str, Any], headers: dict[str, Any]
) -> dict[str, Any]:
    example = {"error": {"code": code, "message": message, "details": details}}
    response = {"model": ErrorBody, "description": description, "content": {"application/json": {"example": example}}}
    return response | ({"headers": headers} if headers else {})


ALWAYS = error_responses(422, 429, 500, 503)
"""Errors of every route."""

NOT_FOUND = error_responses(404)
WRITES = error_responses(401, 403, 413, 415)
"""Errors of routes that take a token and a body."""
