"""Encode values for storage: digests, ids of mappings, and times as text."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from ...domain.targets import TargetSpec
from ...schema import canonical


def digest_of(value: Any) -> str:
    """Return ``sha256:`` and the digest of the canonical JSON of a value."""
    return "sha256:" + sha256(canonical(value).encode()).hexdigest()


class MappingKey(NamedTuple):
    """Identify the mappings that compete in a lookup: one architecture, PEFT type and preset."""

    library: str
    name: str
    peft_type: str
    preset: str


def mapping_id(key: MappingKey, source_kind: str, revision: int, spec: TargetSpec) -> str:
    """Return the id of a mapping revision, the digest of its content."""
    identity = {
        "architecture": {"library": key.library, "name": key.name},
        "peft_type": key.peft_type,
        "preset": key.preset,
        "source": source_kind,
        "revision": revision,
        "spec": spec.stored,
    }
    return digest_of(identity)


def now(shift: timedelta = timedelta()) -> str:
    """Return the current time, or the time ``shift`` from now, as ISO 8601 in UTC.

    All times as text have one length, so that they sort.
    """
    return _to_text(datetime.now(UTC) + shift)


def to_time(value: datetime | None) -> str | None:
    """Return a time column as text; SQLite returns times without a zone, PostgreSQL in its own."""
    if value is None:
        return None
    return _to_text(value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


def _to_text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
