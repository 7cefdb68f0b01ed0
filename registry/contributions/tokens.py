"""Create, authenticate and revoke tokens, and sign people in with them; only digests of secrets are stored."""

import re
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from ...domain.identities import LOCAL, TOKEN_ROLES, Actor, Token, TokenRole
from ...errors import Conflict, DatabaseUnusable, InvalidRequest, NotAuthenticated, ReadOnly, UnknownToken, quoted
from ..db import tables
from ..db.audit_log import token_subject
from ..db.database import Database
from ..db.encoding import now

SECRET_PREFIX = "lrd_"  # noqa: S105 - tells what it is a secret of
"""Prefix of every secret, by which scanners for leaked secrets recognise one."""

RESERVED = frozenset({LOCAL.name, "loradar", "loradar-drift"})
"""Names of actors without a token."""

LONGEST = timedelta(days=3660)
USE_NOTED_EVERY = timedelta(minutes=1)
"""How often the time of use is stored, so that reads rarely write."""

SESSION = timedelta(hours=12)
"""Time after which a person who signed in has to do so again: a working day."""

NOTE_SECONDS = 0.25
"""How long storing it waits for other writers: the next request can store it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHOWN = len(SECRET_PREFIX) + 6
_tokens, _sessions = tables.tokens, tables.sessions
_TOKENS = select(*(column for column in _tokens.c if column.name != "hash"))
_CREATE_ONE = (
    "Ask an admin for one, or create one on the registry's machine: loradar token create NAME --role contributor"
)


class Tokens:
    """The tokens of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, role: TokenRole, by: Actor = LOCAL, expires_in: timedelta | None = None
    ) -> tuple[Token, str]:
        """Create a token, and return it with its secret; see ``Backend.create_token``.

        Raises:
            InvalidRequest: If the name, the role or the time is invalid.
        """
        if not _NAME.fullmatch(name):
            message = f"Invalid token name {name!r}. Give 1 to 64 of a-z, 0-9, '.', '_' and '-', such as 'ada'."
            raise InvalidRequest(message, name=name)
        if name in RESERVED:
            message = f"The name {name!r} is reserved. Choose another."
            raise InvalidRequest(message, name=name)
        if role not in TOKEN_ROLES:
            message = f"Unknown role {role!r}. Roles: {quoted(TOKEN_ROLES)}."
            raise InvalidRequest(message, role=role)
        if expires_in is not None and not timedelta() < expires_in <= LONGEST:
            message = f"A token cannot expire in {expires_in.days} days. Give 1 to {LONGEST.days}, or nothing."
            raise InvalidRequest(message, days=expires_in.days)
        secret = SECRET_PREFIX + token_urlsafe(32)
        with self._database.write("token.create", by.name) as write:
            values = {
                "name": name,
                "role": role,
                "prefix": secret[:_SHOWN],
                "created_by": by.name,
                "created_at": now(),
                "expires_at": now(expires_in) if expires_in else None,
            }
            number = write.insert(_tokens, **values, hash=_digest(secret))
            write.log(token_subject(number), owner=name, role=role)
            (token,) = _find(write.connection, _TOKENS.where(_tokens.c.id == number))
        return token, secret

    def authenticate(self, secret: str) -> Actor:
        """Return the owner of a token.

        Raises:
            NotAuthenticated: If it is unknown, expired or revoked.
        """
        return self._authenticate(secret).actor

    def _authenticate(self, secret: str) -> Token:
        with self._database.read() as connection:
            found = _find(connection, _TOKENS.where(_tokens.c.hash == _digest(secret)))
        if not found:
            message = f"Unknown token. {_CREATE_ONE}"
            raise NotAuthenticated(message)
        token = found[0]
        _require_valid(token)
        if token.last_used_at is None or token.last_used_at <= now(-USE_NOTED_EVERY):
            # A token is as good where its use cannot be stored, as on a disk that is full.
            with suppress(DatabaseUnusable, ReadOnly), self._database.write_unlogged(NOTE_SECONDS) as connection:
                connection.execute(update(_tokens).where(_tokens.c.id == token.id).values(last_used_at=now()))
        return token

    def sign_in(self, secret: str) -> tuple[Actor, str]:
        """Begin a session of a token's owner; return them with the session's own secret.

        A session ends after ``SESSION``, when its owner signs out, and with its token.

        Raises:
            NotAuthenticated: As ``authenticate``.
        """
        token, session = self._authenticate(secret), token_urlsafe(32)
        values = {"hash": _digest(session), "token_id": token.id, "expires_at": now(SESSION)}
        with self._database.write_unlogged() as connection:
            connection.execute(delete(_sessions).where(_sessions.c.expires_at <= now()))
            connection.execute(insert(_sessions).values(values))
        return token.actor, session

    def authenticate_session(self, session: str) -> Actor:
        """Return the person of a session.

        Raises:
            NotAuthenticated: If it is over, or its token expired or was revoked.
        """
        is_own = (_sessions.c.hash == _digest(session)) & (_sessions.c.expires_at > now())
        with self._database.read() as connection:
            found = _find(connection, _TOKENS.join(_sessions, _sessions.c.token_id == _tokens.c.id).where(is_own))
        if not found:
            message = f"You are signed out: a session ends after {SESSION // timedelta(hours=1)} hours. Sign in again."
            raise NotAuthenticated(message)
        _require_valid(found[0])
        return found[0].actor

    def sign_out(self, session: str) -> None:
        """End a session; one that is over stays so."""
        with self._database.write_unlogged() as connection:
            connection.execute(delete(_sessions).where(_sessions.c.hash == _digest(session)))

    def list(self) -> tuple[Token, ...]:
        """Return every token ever created, oldest first."""
        with self._database.read() as connection:
            return tuple(_find(connection, _TOKENS.order_by(_tokens.c.id)))

    def revoke(self, token_id: int, by: Actor = LOCAL) -> Token:
        """Revoke a token.

        Raises:
            UnknownToken: If no token has this number.
            Conflict: If it is revoked already.
        """
        with self._database.write("token.revoke", by.name) as write:
            is_own = _tokens.c.id == token_id
            found = _find(write.connection, _TOKENS.where(is_own))
            if not found:
                raise UnknownToken(str(token_id), (), "List them with: loradar token list")
            if found[0].revoked_at:
                message = f"Token {token_id} was revoked at {found[0].revoked_at} already."
                raise Conflict(message, token=token_id)
            revoked = replace(found[0], revoked_at=now())
            write.change(update(_tokens).where(is_own).values(revoked_at=revoked.revoked_at))
            write.log(token_subject(token_id), owner=revoked.name)
        return revoked


def _find(connection: Connection, query: Select[Any]) -> list[Token]:
    return [Token(**row) for row in connection.execute(query).mappings()]


def _require_valid(token: Token) -> None:
    for ended, since in (("was revoked", token.revoked_at), ("expired", token.expires_at)):
        if since is not None and since <= now():
            message = f"Token {token.prefix}... of {token.name} {ended} at {since}. {_CREATE_ONE}"
            raise NotAuthenticated(message, token=token.id)


def _digest(secret: str) -> str:
    return sha256(secret.encode(errors="replace")).hexdigest()
