"""Whose database is this, and at which revision? Told from its table names, without SQLAlchemy or Alembic."""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..seed.seed_files import seed_digest
from .urls import unusable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

HEAD = "0006"
"""Newest revision in ``migrations/versions``; a test holds the two together."""

VERSION_TABLE = "alembic_version"
OUR_TABLES = frozenset({"architectures", "mappings", "serial"})

State = Literal["empty", "behind", "unseeded", "ready", "newer", "foreign"]
"""``unseeded``: never seeded, or not from what this loradar brings along."""


class Reader(Protocol):
    """Something that reads a database: an SQLite file directly, or any other through SQLAlchemy."""

    def rows(self, sql: str, /, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a SELECT with ``:name`` parameters."""

    def list_tables(self) -> frozenset[str]:
        """Return the names of all tables."""

    def steady(self) -> "AbstractContextManager[Reader]":
        """Lend a reader that sees one state of the database throughout, whatever is written meanwhile."""

    def close(self) -> None:
        """Close every connection."""


def state_of(reader: Reader) -> State:
    """Return what has to happen before this database can be used as a registry."""
    tables = reader.list_tables()
    revision = find_revision(reader) if VERSION_TABLE in tables else None
    if revision is None:
        return "foreign" if tables - {VERSION_TABLE} else "empty"
    if not tables >= OUR_TABLES or not revision.isdecimal():
        return "foreign"
    if int(revision) != int(HEAD):
        return "newer" if int(revision) > int(HEAD) else "behind"
    return "ready" if is_seeded(reader) else "unseeded"


def is_seeded(reader: Reader) -> bool:
    """Tell whether what this loradar brings along was loaded into a registry of the newest schema."""
    return bool(reader.rows("SELECT id FROM seeds WHERE digest = :digest", digest=seed_digest()))


def find_revision(reader: Reader) -> str | None:
    """Return the revision the schema is at; ``None`` if it was never migrated or taken down again."""
    rows = reader.rows("SELECT version_num FROM alembic_version")
    return str(rows[0]["version_num"]) if rows else None


def serial_of(reader: Reader) -> int:
    """Return the number of writes that changed something; the first is the seeding."""
    return int(reader.rows("SELECT value FROM serial")[0]["value"])


def usable_state(url: str, reader: Reader) -> State:
    """Return the state of a database that is empty or a registry this version can use.

    Raises:
        DatabaseUnusable: If it belongs to something else or to a newer version.
    """
    state = state_of(reader)
    if state == "foreign":
        names = sorted(reader.list_tables())
        some = ", ".join(names[:5]) + (", ..." if names[5:] else "")
        raise unusable(url, f"it is not a loradar registry (its tables: {some})")
    if state == "newer":
        reason = f"its schema is at revision {find_revision(reader)}; this version of loradar knows up to {HEAD}"
        raise unusable(url, reason, "Upgrade loradar, or set LORADAR_DATABASE_URL to another database.")
    return state
