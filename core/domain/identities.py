"""Describe the people who write: names, roles and tokens."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from ..schema import Config, schema_config

TokenRole = Literal["contributor", "reviewer", "admin"]
TOKEN_ROLES: tuple[TokenRole, ...] = get_args(TokenRole)
"""Roles in ascending order; each includes the rights of those before."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change: the owner of a token, or loradar itself."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (Actor("ada", "contributor"),))

    name: str
    role: TokenRole

    def may(self, role: TokenRole) -> bool:
        """Return whether the actor's role includes ``role``."""
        return TOKEN_ROLES.index(self.role) >= TOKEN_ROLES.index(role)


LOCAL = Actor("local", "admin")
"""The actor with direct access to the database: the command line without a token, and loradar itself."""


@dataclass(frozen=True, slots=True)
class Token:
    """The stored part of a token; the secret is shown once and only its hash is kept."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (TOKEN_EXAMPLE,))

    id: int
    name: str
    """Owner; all tokens of one person have the same name."""
    role: TokenRole
    prefix: str
    """First characters of the secret, which distinguish tokens."""
    created_by: str
    created_at: str
    """ISO 8601 time in UTC, as every time here."""
    expires_at: str | None = None
    """Null for never."""
    revoked_at: str | None = None
    """Null while the token works."""
    last_used_at: str | None = None
    """To the minute; null if never."""

    @property
    def actor(self) -> Actor:
        """The author of what is written with it."""
        return Actor(self.name, self.role)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token with its secret, which is shown this once."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (NewToken(TOKEN_EXAMPLE, "lrd_9fK2xQm0Jr4mT1vW8cYb3nZ6sD5gH7kL0pA2eU4iO8q"),)
    )

    token: Token
    secret: str


@dataclass(frozen=True, slots=True)
class TokenList:
    """Every token ever made, oldest first."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (TokenList((TOKEN_EXAMPLE,)),))

    tokens: tuple[Token, ...]


TOKEN_EXAMPLE: Token = Token(
    id=2,
    name="ada",
    role="contributor",
    prefix="lrd_9fK2xQ",
    created_by="local",
    created_at="2026-11-26T02:22:00.000000Z",
    expires_at="2027-11-26T02:22:00.000000Z",
)
