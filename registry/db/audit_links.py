"""One link of the log of changes: what its digest is over. No SQLAlchemy in here."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from .canonical import canonical

FIRST = "sha256:" + 64 * "0"
"""What stands for the link before the first."""


def link_digest(link: Mapping[str, Any]) -> str:
    """Return the digest of a link: of everything in it but the digest itself, ``details`` as stored."""
    told = {name: link[name] for name in ("serial", "at", "actor", "action", "details", "previous")}
    return "sha256:" + sha256(canonical(told).encode()).hexdigest()
