"""Handle conditional requests: ``ETag``, ``If-None-Match``, ``If-Match`` and ``Idempotency-Key``."""

from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from starlette.responses import JSONResponse, Response

from ..registry import Key

CACHE_CONTROL = "public, max-age=60"
"""A minute: new revisions are rare, and every response can be revalidated by its tag."""

TAG_PATTERN = r'^(\*|"v[1-9][0-9]{0,8}")$'

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern=TAG_PATTERN,
        description="`ETag` of the version read: the write is rejected with 412 if it has changed since",
        examples=['"v2"'],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]([ -~]{0,253}[!-~])?$",
        max_length=255,
        description="Your name for this write: repeated with the same request, it gets the first response",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]


def parse_version(if_match: IfMatch = None) -> int | None:
    """Return the version a write is based on; ``None`` for any version."""
    return None if if_match in (None, "*") else int(str(if_match)[2:-1])


async def make_key(request: Request, key: IdempotencyKey = None) -> Key | None:
    """Return the idempotency key with a digest of the request, so that it cannot be reused for another request."""
    if key is None:
        return None
    condition = request.headers.get("If-Match", "")
    content = f"{request.method}\n{request.url.path}\n{condition}\n".encode() + await request.body()
    return Key(key, "sha256:" + sha256(content).hexdigest())


Version = Annotated[int | None, Depends(parse_version)]
WriteKey = Annotated[Key | None, Depends(make_key)]

TAGGED: dict[str, Any] = {
    "headers": {"ETag": {"description": "Its version, for `If-Match`", "schema": {"type": "string"}, "example": '"v2"'}}
}
"""OpenAPI for the header of a response that has a version."""


def version_tag(version: int) -> str:
    """Return the ``ETag`` of a version."""
    return f'"v{version}"'


def cached_json(request: Request, body: dict[str, Any]) -> Response:
    """Return a JSON response tagged by its bytes, or 304 if ``If-None-Match`` names the tag."""
    return cached(request, JSONResponse(body))


def cached(request: Request, response: Response) -> Response:
    """Return a response tagged by its bytes, or 304 if ``If-None-Match`` names the tag."""
    return tagged(request, response, f'"{sha256(bytes(response.body)).hexdigest()[:32]}"', CACHE_CONTROL)


def tagged(request: Request, response: Response, tag: str, cache_control: str) -> Response:
    """Return a response with a tag, or 304 if ``If-None-Match`` names the tag."""
    headers = {"ETag": tag, "Cache-Control": cache_control}
    if names_tag(request.headers.get("If-None-Match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    response.headers.update(headers)
    return response


def names_tag(condition: str, tag: str) -> bool:
    """Return whether an ``If-None-Match`` header names a tag; weak comparison, as RFC 9110, 13.1.2 requires."""
    named = {part.strip().removeprefix("W/") for part in condition.split(",")}
    return tag in named or "*" in named
