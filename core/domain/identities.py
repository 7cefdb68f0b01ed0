"""Who writes: a name and a role, told by a token that is shown once and stored hashed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

TokenRole = Literal["contributor", "reviewer", "admin"]
TOKEN_ROLES: tuple[TokenRole, ...] = get_args(TokenRole)
"""From the least to the most: a reviewer may do what a contributor may, an admin what a reviewer may."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something: the owner of a token, or loradar itself."""

    name: str
    role: TokenRole

    def may(self, role: TokenRole) -> bool:
        """Tell whether this role is at least ``role``."""
        return TOKEN_ROLES.index(self.role) >= TOKEN_ROLES.index(role)


LOCAL = Actor("local", "admin")
"""Whoever has the database itself: the command line without a token, and what loradar does on its own."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the secret itself was shown when it was made, and is not kept.

    Attributes:
        id: Number of the token.
        name: Whose it is; one person may have several, one after the other.
        role: What its owner may do.
        prefix: First characters of the secret, to tell tokens apart.
        created_by: Name of who made it.
        created_at: ISO 8601 in UTC, as every time here.
        expires_at: When it stops working; ``None`` for never.
        revoked_at: Since when it works no longer; ``None`` if it does.
        last_used_at: When it was last used, to the minute; ``None`` if never.
    """

    id: int
    name: str
    role: TokenRole
    prefix: str
    created_by: str
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a token from its JSON form."""
        return cls(**data)
