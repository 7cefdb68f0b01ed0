"""The shapes of answers about tokens."""

from typing import Any

from pydantic import ConfigDict, Field

from ..domain.identities import TokenRole
from .schemas import Shape

TOKEN_EXAMPLE: dict[str, Any] = {
    "id": 2,
    "name": "ada",
    "role": "contributor",
    "prefix": "lrd_9fK2xQ",
    "created_by": "local",
    "created_at": "2026-11-26T02:22:00.000000Z",
    "expires_at": "2027-11-26T02:22:00.000000Z",
    "revoked_at": None,
    "last_used_at": None,
}


class TokenBody(Shape):
    """What is known of a token; its secret is not kept."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [TOKEN_EXAMPLE]})

    id: int
    name: str
    role: TokenRole
    prefix: str = Field(description="First characters of the secret, to tell tokens apart")
    created_by: str
    created_at: str
    expires_at: str | None = Field(description="Null for never")
    revoked_at: str | None
    last_used_at: str | None = Field(description="To the minute")


class NewTokenBody(Shape):
    """A token with its secret, which is shown this once."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"token": TOKEN_EXAMPLE, "secret": "lrd_9fK2xQm0Jr4mT1vW8cYb3nZ6sD5gH7kL0pA2eU4iO8q"}]
        },
    )

    token: TokenBody
    secret: str


class TokensBody(Shape):
    """Every token ever made, oldest first."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tokens": [TOKEN_EXAMPLE]}]})

    tokens: list[TokenBody]


class ActorBody(Shape):
    """Whose token came with the request."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ada", "role": "contributor"}]})

    name: str
    role: TokenRole
