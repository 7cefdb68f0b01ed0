"""First use, of a database or of a loradar: makes it a migrated, seeded registry, or says why it cannot be one."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..seed.seed import add_seed
from .engine import ConnectionReader, connect_to, lock_first_use, transaction, use_write_ahead_log
from .schema import State, usable_state
from .urls import sqlite_file, unusable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def prepare(url: str) -> "Engine":
    """Create, migrate and seed the database as needed, in one transaction, and return its engine.

    Of two processes that come at once, the second waits and finds the work done.

    Raises:
        DatabaseUnusable: If it is foreign, newer than this loradar or out of reach; nothing was changed then.
    """
    create_folder(url)
    with ExitStack() as stack:
        engine = connect_to(url)
        stack.callback(engine.dispose)
        with transaction(engine) as connection:
            lock_first_use(connection)
            _bring_up(connection, usable_state(url, ConnectionReader(connection)))
        use_write_ahead_log(engine)
        stack.pop_all()
        return engine


def _bring_up(connection: "Connection", state: State) -> None:
    if state in ("empty", "behind"):
        migrate(connection)
    if state != "ready":
        add_seed(connection)


def create_folder(url: str) -> None:
    """Make the folder an SQLite file will be in."""
    path = sqlite_file(url)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(url, f"its folder cannot be made ({error.strerror})") from error


def migrate(connection: "Connection") -> None:
    """Bring the schema to the newest revision within the connection's transaction."""
    from alembic import command  # noqa: PLC0415 - 0.4 s that only a migration pays for
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
