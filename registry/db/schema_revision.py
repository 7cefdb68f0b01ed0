"""Read the revision of a database's schema, and compare it with that of this version of loradar."""

from sqlalchemy import Connection, column, select, table

from . import HEAD

VERSIONS = table("alembic_version", column("version_num"))
"""Alembic's own table."""


def find_revision(connection: Connection) -> str | None:
    """Return the revision of the schema; ``None`` if it was never migrated or taken down again."""
    return connection.execute(select(VERSIONS.c.version_num)).scalar()


def explain_other(connection: Connection) -> str | None:
    """Return in words that the schema is not this version's, as after an upgrade by another one; ``None`` if it is."""
    revision = find_revision(connection)
    return (
        None if revision == HEAD else f"its schema is at revision {revision}, and this process of loradar knows {HEAD}"
    )
