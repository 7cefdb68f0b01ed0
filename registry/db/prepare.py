"""First use, of a database or of a loradar: makes it a migrated, seeded registry, or says why it cannot be one."""

import os
import sys
from contextlib import ExitStack
from threading import Timer
from typing import TYPE_CHECKING

from ...settings import DATABASE_URL_VARIABLE
from ..seed.seed import add_seed
from .engine import ConnectionReader, connect_to, first_use_transaction, use_write_ahead_log
from .schema import State, usable_state
from .urls import masked, sqlite_file, unusable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

QUIET_SECONDS = 1.0
"""How long creating or upgrading a registry, or waiting for it, may take before the user reads of it."""


def prepare(url: str) -> "Engine":
    """Create, migrate and seed the database as needed, in one transaction, and return its engine.

    Of two processes that come at once, the second waits and finds the work done. Of a process that was killed,
    SQLite or the server undoes the work, and the next one does it. A line on standard error reports what takes
    longer than ``QUIET_SECONDS``.

    Raises:
        DatabaseUnusable: If it is foreign, newer than this loradar or out of reach; nothing was changed then.
    """
    create_folder(url)
    file = sqlite_file(url)
    with ExitStack() as stack:
        engine = connect_to(url)
        stack.callback(engine.dispose)
        notice = Timer(QUIET_SECONDS, _report, [url])
        notice.daemon = True
        stack.callback(notice.cancel)
        if file:
            notice.start()  # before waiting for another process
            if not (file.exists() and file.stat().st_size):
                # Before the first row: a transaction without the log writes into the file as it goes, so that
                # readers have to wait, and a process killed meanwhile leaves pages without the first one.
                use_write_ahead_log(engine)
        with first_use_transaction(engine) as connection:
            state = usable_state(url, ConnectionReader(connection))
            if state != "ready" and not file:
                notice.start()
            _bring_up(connection, state)
        use_write_ahead_log(engine)
        notice.cancel()
        stack.pop_all()
        return engine


def _bring_up(connection: "Connection", state: State) -> None:
    if state in ("empty", "behind"):
        migrate(connection)
    if state != "ready":
        add_seed(connection)


def _report(url: str) -> None:
    print(  # noqa: T201 - a command's own output goes to standard output
        f"Preparing the registry in {sqlite_file(url) or masked(url)} (first use of this version of loradar) ...",
        file=sys.stderr,
        flush=True,
    )


def create_folder(url: str) -> None:
    """Make the folder an SQLite file will be in.

    Raises:
        DatabaseUnusable: If the folder cannot be made, or takes no new file.
    """
    path = sqlite_file(url)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(url, f"its folder cannot be made ({error.strerror})") from error
    if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        way_out = f"Make the folder writable, or set {DATABASE_URL_VARIABLE} to another database."
        raise unusable(url, "its folder is not writable", way_out)


def migrate(connection: "Connection") -> None:
    """Bring the schema to the newest revision within the connection's transaction."""
    from alembic import command  # noqa: PLC0415 - 0.4 s that only a migration pays for
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
