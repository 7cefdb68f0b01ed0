"""Database URLs, read without SQLAlchemy: which are plain SQLite files, and each without its password."""

import re
from pathlib import Path

from ...errors import DatabaseUnusable
from ...settings import DATABASE_URL_VARIABLE

_SQLITE_FILE = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?]+)")
_PASSWORD = re.compile(r"(//[^:/@]*:)[^/]*@")
_PASSWORD_OPTION = re.compile(r"([?&]\w*password=)[^&]*", re.IGNORECASE)


def sqlite_file(url: str) -> Path | None:
    """Return the file of a plain SQLite URL, or ``None`` for any other database."""
    match = _SQLITE_FILE.fullmatch(url)
    return Path(match[1]).absolute() if match else None


def masked(url: str) -> str:
    """Return the URL with its password masked, for messages."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))


def unusable(url: str, reason: str, way_out: str = "") -> DatabaseUnusable:
    """Return the error for a database that cannot be used, naming it, why, and the way out."""
    place = str(sqlite_file(url) or masked(url))
    way_out = way_out or f"Set {DATABASE_URL_VARIABLE} to another database, or move this one away."
    message = f"Registry database {place!r} cannot be used: {reason.strip().rstrip('.')}. {way_out}"
    return DatabaseUnusable(message, database=place, reason=reason)
