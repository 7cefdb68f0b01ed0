"""Times as everybody reads them: ISO 8601 in UTC, whatever form a database gives them in."""

from datetime import UTC, datetime


def to_time(value: object) -> str | None:
    """Return a time as text; SQLite gives a column of times as text without a zone, PostgreSQL as an object."""
    if value is None:
        return None
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
