"""Times as they are stored: ISO 8601 in UTC, always of one length, so that they sort as text."""

from datetime import UTC, datetime, timedelta


def now(shift: timedelta = timedelta()) -> str:
    """Return the time, or that of ``shift`` from now."""
    return (datetime.now(UTC) + shift).isoformat(timespec="microseconds").replace("+00:00", "Z")
