"""Keep idempotency keys: a request repeated under its key is done once and gets the first response again."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from sqlalchemy import delete, insert, select

from ...domain.identities import Actor
from ...errors import KeyReused
from ..db import tables
from ..db.database import Transaction
from ..db.encoding import canonical, digest_of, now

KEPT = timedelta(hours=24)
"""Time a key is kept."""

_keys = tables.idempotency_keys


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of the request it came with.

    Attributes:
        key: The client's text; every person has keys of their own.
        request: Digest of the request: another request must not reuse the key.
    """

    key: str
    request: str

    @classmethod
    def of(cls, key: str, request: Any) -> Self:
        """Return the key of a request, given as any JSON value."""
        return cls(key, digest_of(request))


def find_replay(write: Transaction, actor: Actor, key: Key | None) -> dict[str, Any] | None:
    """Return the response of the first request under this key, or ``None``.

    Raises:
        KeyReused: If the key came with another request.
    """
    if key is None:
        return None
    query = select(_keys.c.request, _keys.c.answer).where(_keys.c.actor == actor.name, _keys.c.key == key.key)
    row = write.connection.execute(query.where(_keys.c.created_at > now(-KEPT))).first()
    if row is None:
        return None
    if row.request != key.request:
        message = f"Idempotency key {key.key!r} came with another request before: use a new key for a new request."
        raise KeyReused(message, key=key.key)
    answer: dict[str, Any] = json.loads(row.answer)
    return answer


def keep_replay(write: Transaction, actor: Actor, key: Key | None, response: dict[str, Any]) -> None:
    """Keep the response of a request, and delete expired ones."""
    if key is None:
        return
    write.change(delete(_keys).where(_keys.c.created_at <= now(-KEPT)))
    values = {"request": key.request, "answer": canonical(response), "created_at": now()}
    write.change(insert(_keys).values(actor=actor.name, key=key.key, **values))
