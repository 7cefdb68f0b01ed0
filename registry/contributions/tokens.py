"""Tokens: who may write. The secret is shown once; what is kept is its digest."""

import re
from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any

from ...domain.identities import LOCAL, TOKEN_ROLES, Actor, Token, TokenRole
from ...domain.schema import to_json
from ...errors import Conflict, InvalidRequest, NotAuthenticated, UnknownToken, quoted
from ..db.database import Access
from ..db.subjects import token_subject
from ..db.times import now

SECRET_PREFIX = "lrd_"  # noqa: S105 - tells what it is a secret of
"""What every secret starts with, so that scanners for leaked secrets can know one."""

RESERVED = frozenset({LOCAL.name, "loradar", "loradar-drift"})
"""Names of what writes without a token."""

LONGEST = timedelta(days=3660)
USE_NOTED_EVERY = timedelta(minutes=1)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHOWN = len(SECRET_PREFIX) + 6
_COLUMNS = "SELECT id, name, role, prefix, created_by, created_at, expires_at, revoked_at, last_used_at FROM tokens "
_MAKE_ONE = "Ask an admin for one, or make one where the registry is: loradar token create NAME --role contributor"


class Tokens:
    """The tokens of a registry."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def create(
        self, name: str, role: TokenRole, by: Actor = LOCAL, expires_in: timedelta | None = None
    ) -> tuple[Token, str]:
        """Make a token, and return it with its secret, which nobody can ask for again.

        Args:
            name: Whose it is; one person's tokens all have the same name.
            role: What its owner may do.
            by: Who makes it.
            expires_in: How long it works; ``None`` for ever.

        Raises:
            InvalidRequest: If the name, the role or the time is none.
        """
        _check(name, role, expires_in)
        secret = SECRET_PREFIX + token_urlsafe(32)
        with self._access.writing("token.create", by.name) as write:
            number = 1 + int(write.reader.rows("SELECT COALESCE(MAX(id), 0) AS n FROM tokens")[0]["n"])
            expires = now(expires_in) if expires_in else None
            token = Token(number, name, role, secret[:_SHOWN], by.name, now(), expires)
            write.insert("tokens", **to_json(token), hash=_digest(secret))
            write.tell(token_subject(number), owner=name, role=role)
        return token, secret

    def authenticate(self, secret: str) -> Actor:
        """Return whose token this is.

        Raises:
            NotAuthenticated: If it is unknown, expired or revoked.
        """
        token = self._find("WHERE hash = :hash", hash=_digest(secret))
        if token is None:
            message = f"This token is not known. {_MAKE_ONE}"
            raise NotAuthenticated(message)
        for gone, since in (("was revoked", token.revoked_at), ("expired", token.expires_at)):
            if since is not None and since <= now():
                message = f"Token {token.prefix}... of {token.name} {gone} at {since}. {_MAKE_ONE}"
                raise NotAuthenticated(message, token=token.id)
        self._note_use(token)
        return Actor(token.name, token.role)

    def list(self) -> tuple[Token, ...]:
        """Return every token ever made, oldest first."""
        return tuple(Token(**row) for row in self._access.reader.rows(_COLUMNS + "ORDER BY id"))

    def revoke(self, token_id: int, by: Actor = LOCAL) -> Token:
        """Let a token work no longer.

        Raises:
            UnknownToken: If there is none of this number.
            Conflict: If it was revoked before.
        """
        with self._access.writing("token.revoke", by.name) as write:
            rows = write.reader.rows(_COLUMNS + "WHERE id = :id", id=token_id)
            if not rows:
                raise UnknownToken(str(token_id), (), "List them with: loradar token list")
            if rows[0]["revoked_at"]:
                message = f"Token {token_id} was revoked at {rows[0]['revoked_at']} already."
                raise Conflict(message, token=token_id)
            revoked = Token(**{**rows[0], "revoked_at": now()})
            write.run("UPDATE tokens SET revoked_at = :at WHERE id = :id", at=revoked.revoked_at, id=token_id)
            write.tell(token_subject(token_id), owner=revoked.name)
        return revoked

    def _find(self, where: str, **values: Any) -> Token | None:
        rows = self._access.reader.rows(_COLUMNS + where, **values)
        return Token(**rows[0]) if rows else None

    def _note_use(self, token: Token) -> None:
        """Note when it was used, to the minute: reading should not become writing."""
        if token.last_used_at is not None and token.last_used_at > now(-USE_NOTED_EVERY):
            return
        from sqlalchemy import text  # noqa: PLC0415 - 0.3 s

        with self._access.transaction() as connection:
            used = text("UPDATE tokens SET last_used_at = :at WHERE id = :id")
            connection.execute(used, {"at": now(), "id": token.id})


def _check(name: str, role: str, expires_in: timedelta | None) -> None:
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no name for a token. Give 1 to 64 of a-z, 0-9, '.', '_' and '-', such as 'ada'."
        raise InvalidRequest(message, name=name)
    if name in RESERVED:
        message = f"The name {name!r} is loradar's own. Choose another."
        raise InvalidRequest(message, name=name)
    if role not in TOKEN_ROLES:
        message = f"There is no role {role!r}. Roles: {quoted(TOKEN_ROLES)}."
        raise InvalidRequest(message, role=role)
    if expires_in is not None and not timedelta() < expires_in <= LONGEST:
        message = f"A token cannot expire in {expires_in.days} days. Give 1 to {LONGEST.days}, or none for ever."
        raise InvalidRequest(message, days=expires_in.days)


def _digest(secret: str) -> str:
    return sha256(secret.encode(errors="replace")).hexdigest()
