"""Times as they are stored and read: ISO 8601 in UTC, always of one length, so that they sort as text."""

from datetime import UTC, datetime, timedelta


def now(shift: timedelta = timedelta()) -> str:
    """Return the time, or that of ``shift`` from now."""
    return _to_text(datetime.now(UTC) + shift)


def to_time(value: object) -> str | None:
    """Return a time as text; SQLite gives a column of times as text without a zone, PostgreSQL as an object."""
    if value is None:
        return None
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return _to_text(at)


def _to_text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
