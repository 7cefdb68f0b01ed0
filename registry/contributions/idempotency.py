"""Idempotency keys: the same request sent twice is done once, and answered twice."""

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
"""How long a key is remembered."""

_keys = tables.idempotency_keys


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of the request it came with.

    Attributes:
        key: As the client chose it; each token's owner has keys of their own.
        request: Digest of what was asked for: another request must not come with the same key.
    """

    key: str
    request: str

    @classmethod
    def of(cls, key: str, request: Any) -> Self:
        """Return the key of a request, which is anything that canonical JSON can say."""
        return cls(key, digest_of(request))


def find_answer(write: Transaction, actor: Actor, key: Key | None) -> dict[str, Any] | None:
    """Return what the request was answered with when it came first, or ``None``.

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
        message = f"Idempotency key {key.key!r} came with another request before. Use a new key for a new request."
        raise KeyReused(message, key=key.key)
    answer: dict[str, Any] = json.loads(row.answer)
    return answer


def keep_answer(write: Transaction, actor: Actor, key: Key | None, answer: dict[str, Any]) -> None:
    """Remember what a request was answered with; forget what is too old."""
    if key is None:
        return
    write.change(delete(_keys).where(_keys.c.created_at <= now(-KEPT)))
    values = {"request": key.request, "answer": canonical(answer), "created_at": now()}
    write.change(insert(_keys).values(actor=actor.name, key=key.key, **values))
