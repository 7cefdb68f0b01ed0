"""Alembic's environment, for its command line and for ``loradar.registry``, which hands over a connection.

Alembic loads this file by path, so its imports are absolute.
"""

from alembic import context
from sqlalchemy import Connection

from loradar.registry.db.database import connect_to, transaction
from loradar.registry.db.prepare import create_folder
from loradar.registry.db.tables import metadata
from loradar.settings import Settings


def migrate(connection: Connection) -> None:
    """Run the revisions on a connection, in its transaction."""
    is_sqlite = connection.dialect.name == "sqlite"
    # SQLite cannot alter most things in place: batch mode copies the table. That deletes the rows that refer to it
    # (ON DELETE CASCADE), so revisions drop a column with ``op.drop_column``, which SQLite does in place.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=is_sqlite)
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Migrate the connection in ``config.attributes``, else the database of the environment's settings."""
    given = context.config.attributes.get("connection")
    if given is not None:
        migrate(given)
        return
    url = Settings.from_environment().database_url
    create_folder(url)
    with transaction(connect_to(url)) as connection:
        migrate(connection)


def write_sql() -> None:
    """Print the SQL instead of running it (``alembic upgrade head --sql``)."""
    url = Settings.from_environment().database_url
    context.configure(url=url, target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    main()
