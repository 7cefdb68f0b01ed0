"""Idempotency keys: the same request sent twice is done once, and answered twice."""

import json
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from ...domain.identities import Actor
from ...errors import KeyReused
from ..db.canonical import canonical
from ..db.times import now

if TYPE_CHECKING:
    from ..db.transaction import Write

KEPT = timedelta(hours=24)
"""How long a key is remembered."""

_FIND = "SELECT request, answer FROM idempotency_keys WHERE actor = :actor AND key = :key AND created_at > :oldest"


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
        return cls(key, "sha256:" + sha256(canonical(request).encode()).hexdigest())


def find_answer(write: "Write", actor: Actor, key: Key | None) -> dict[str, Any] | None:
    """Return what the request was answered with when it came first, or ``None``.

    Raises:
        KeyReused: If the key came with another request.
    """
    rows = write.reader.rows(_FIND, actor=actor.name, key=key.key, oldest=now(-KEPT)) if key else []
    if not rows or key is None:
        return None
    if rows[0]["request"] != key.request:
        message = f"Idempotency key {key.key!r} came with another request before. Use a new key for a new request."
        raise KeyReused(message, key=key.key)
    answer: dict[str, Any] = json.loads(rows[0]["answer"])
    return answer


def keep_answer(write: "Write", actor: Actor, key: Key | None, answer: dict[str, Any]) -> None:
    """Remember what a request was answered with; forget what is too old."""
    if key is None:
        return
    write.run("DELETE FROM idempotency_keys WHERE created_at <= :oldest", oldest=now(-KEPT))
    texts = {"request": key.request, "answer": canonical(answer), "created_at": now()}
    write.insert("idempotency_keys", actor=actor.name, key=key.key, **texts)
