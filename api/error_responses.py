"""The errors a route may answer with, for OpenAPI: one shape, an example of each, and the headers that come with it."""

from typing import Any

from ..errors import ErrorBody

Responses = dict[int | str, dict[str, Any]]

_RETRY = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 0}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "What would do: a bearer token", "schema": {"type": "string"}}}

_TOLD: dict[int, tuple[str, str, str, dict[str, Any], dict[str, Any]]] = {
    400: (
        "The reference is none, or not scanned for others",
        "invalid_reference",
        "file:/etc/passwd is not scanned for others: it may be any code or file. Schemes: 'hub', 'transformers', ...",
        {"reference": "file:/etc/passwd", "schemes": ["hub", "transformers", "timm", "diffusers"]},
        {},
    ),
    401: (
        "No token, or one that does not work",
        "not_authenticated",
        "This needs a token. Send 'Authorization: Bearer lrd_...'; an admin makes one: loradar token create.",
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
        "There is no such thing; near names are in the details",
        "not_registered",
        "Nothing is registered for transformers:olmo2. Scan it with: loradar scan olmo2 --store.",
        {"name": "olmo2", "near": [], "library": "transformers"},
        {},
    ),
    409: (
        "The state it is in does not allow this",
        "conflict",
        "Submission 7 is published, so it cannot be reviewed. Only what needs a review can.",
        {"submission_id": 7, "status": "published"},
        {},
    ),
    412: (
        "It changed since the version that `If-Match` names",
        "stale_version",
        "Submission 7 is at version 3, not 2. Read it again, then decide.",
        {"version": 3, "given": 2},
        {},
    ),
    413: (
        "The body is over the limit",
        "too_large",
        "A body here has at most 1048576 bytes; this one has more. Send less, or in parts.",
        {"method": "POST", "path": "/v1/submissions"},
        {},
    ),
    415: (
        "The body is not called JSON",
        "unsupported_media_type",
        "The body is called 'text/plain'. Send JSON, with 'Content-Type: application/json'.",
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
        "More requests than the limit",
        "too_many_requests",
        "More than 600 requests from your address within a minute. Come again in 17 s.",
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
        "The service is installed without what this takes",
        "missing_extra",
        "'torch' is not installed. Install it with: pip install 'loradar[scan]'",
        {"package": "torch", "extra": "scan"},
        {},
    ),
    502: (
        "The hub does not have it, does not give it, or does not answer",
        "hub_failed",
        "The hub has no repo 'org/nothing'. Look for it on the hub's own pages.",
        {"repo": "org/nothing"},
        {},
    ),
    503: (
        "The registry's database cannot be used, or no worker is free",
        "database_unusable",
        "The registry's database cannot be used now; the cause is in the service's log. Try again later.",
        {},
        _RETRY,
    ),
}


def refusals(*statuses: int) -> Responses:
    """Return the errors with these statuses, as a route documents them."""
    return {status: _refusal(*_TOLD[status]) for status in statuses}


def _refusal(
    description: str, code: str, message: str, details: dict[str, Any], headers: dict[str, Any]
) -> dict[str, Any]:
    example = {"error": {"code": code, "message": message, "details": details}}
    told = {"model": ErrorBody, "description": description, "content": {"application/json": {"example": example}}}
    return told | ({"headers": headers} if headers else {})


ALWAYS = refusals(422, 429, 500, 503)
"""What any route may answer with."""

NOT_FOUND = refusals(404)
WRITES = refusals(401, 403, 413, 415)
"""What any route may answer with that takes a token and a body."""
