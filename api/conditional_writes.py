"""Writes that do not happen twice, or to what has changed: ``Idempotency-Key`` and ``If-Match``."""

from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from ..registry import Key

TAG_PATTERN = r'^(\*|"v[1-9][0-9]{0,8}")$'

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern=TAG_PATTERN,
        description="`ETag` of what was read: the write is refused with 412 if it changed since",
        examples=['"v2"'],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]([ -~]{0,253}[!-~])?$",
        max_length=255,
        description="Your name for this write: sent again with the same request, it gets the first answer",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]


def parse_version(if_match: IfMatch = None) -> int | None:
    """Return the version a write is meant for; ``None`` for whichever there is."""
    return None if if_match in (None, "*") else int(str(if_match)[2:-1])


async def make_key(request: Request, key: IdempotencyKey = None) -> Key | None:
    """Return the key of a write with the digest of all that was asked, so that it cannot be spent on another."""
    if key is None:
        return None
    condition = request.headers.get("If-Match", "")
    asked = f"{request.method}\n{request.url.path}\n{condition}\n".encode() + await request.body()
    return Key(key, "sha256:" + sha256(asked).hexdigest())


Version = Annotated[int | None, Depends(parse_version)]
WriteKey = Annotated[Key | None, Depends(make_key)]


def version_tag(version: int) -> str:
    """Return the ``ETag`` of a version."""
    return f'"v{version}"'


TAGGED: dict[str, Any] = {
    "headers": {"ETag": {"description": "Its version, for `If-Match`", "schema": {"type": "string"}, "example": '"v2"'}}
}
"""What a documented answer with a version has besides its body."""
