"""Create SQLAlchemy engines, run transactions on them, and report databases that cannot be used."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from ...errors import DatabaseUnusable, MissingExtra
from ...settings import DATABASE_URL_VARIABLE

POSTGRES_DRIVERS = {"psycopg", "psycopg2"}

BUSY_SECONDS = 30.0
"""How long a transaction on SQLite waits for another writer."""

CONNECT_SECONDS = 10
"""How long to wait for a server that does not respond: each request to it occupies a thread."""

FIRST_USE_SECONDS = 600.0
"""How long to wait for another process that creates or upgrades an SQLite registry."""

_WAIT_OPTION = "busy_seconds"
"""Execution option: seconds a transaction on SQLite waits for another writer, instead of ``BUSY_SECONDS``."""

_READ_OPTION = "read_only"
"""Execution option: whether a transaction on SQLite only reads, and so must not lock out writers."""

_LOCK_KEY = 0x6C6F7261
"""Number of PostgreSQL's advisory lock for first use: ``lora`` in ASCII."""


def connect_to(url: str) -> Engine:
    """Create an engine for a database URL; nothing is opened yet.

    Raises:
        DatabaseUnusable: If the URL cannot be parsed or names an unknown kind of database.
        MissingExtra: If the driver for PostgreSQL is not installed.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend != "sqlite":
            arguments = {"connect_timeout": CONNECT_SECONDS} if backend == "postgresql" else {}
            return create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
        file = sqlite_file(url)
        # A database in memory lives as long as its one connection.
        pool: dict[str, Any] = {"max_overflow": -1} if file else {"poolclass": StaticPool}
        options = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(parsed, connect_args=options, **pool)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        way_out = "Use an URL such as sqlite:////path/registry.sqlite3 or postgresql://user@host/name."
        raise unusable(url, str(error), way_out) from error
    except ModuleNotFoundError as error:
        if error.name in POSTGRES_DRIVERS:
            raise MissingExtra(str(error.name), "postgres") from None
        raise unusable(url, str(error), "Use SQLite or PostgreSQL.") from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    if file:
        _watch_file(engine, file)
    return engine


def _watch_file(engine: Engine, file: Path) -> None:
    """Close pooled connections to a file that was moved away or replaced, instead of reading it on."""

    def identify() -> tuple[int, int] | None:
        with suppress(OSError):
            status = file.stat()
            return status.st_dev, status.st_ino
        return None

    def note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["file"] = identify()

    def check(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        if record.info["file"] != identify():
            raise DisconnectionError

    event.listen(engine, "connect", note)
    event.listen(engine, "checkout", check)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if _WAIT_OPTION in options:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {options[_WAIT_OPTION] * 1000:.0f}")
    # The driver would begin too late: not for DDL, and after reading what it is about to change.
    connection.exec_driver_sql("BEGIN" if options.get(_READ_OPTION) else "BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction; on SQLite it locks out other writers from its start.

    Raises:
        DatabaseUnusable: If the database cannot be reached or written.
    """
    url = engine.url.render_as_string(hide_password=False)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise unusable(url, str(error.orig)) from error
    except SQLAlchemyError as error:
        raise unusable(url, str(error)) from error


def for_reads(engine: Engine) -> Engine:
    """Return the engine with transactions that each see one state of the database and lock out no writer."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    return engine.execution_options(**{_READ_OPTION: True})


@contextmanager
def first_use_transaction(engine: Engine) -> Iterator[Connection]:
    """Run the transaction that creates or upgrades a registry; other processes about to do so wait for its end.

    Raises:
        DatabaseUnusable: If the database cannot be reached or written.
    """
    with transaction(engine.execution_options(**{_WAIT_OPTION: FIRST_USE_SECONDS})) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        yield connection


def use_write_ahead_log(engine: Engine) -> None:
    """Let readers of an SQLite file continue during a write; a busy file keeps its mode."""
    if engine.dialect.name == "sqlite":
        with suppress(sqlite3.OperationalError), closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA journal_mode = WAL")


def sqlite_file(url: str) -> Path | None:
    """Return the file of a plain SQLite URL, or ``None`` for any other database."""
    parsed = make_url(url)
    is_plain = parsed.drivername in {"sqlite", "sqlite+pysqlite"} and not parsed.query
    name = parsed.database or ":memory:"
    return Path(name).absolute() if is_plain and not name.startswith((":memory:", "file:")) else None


def masked(url: str) -> str:
    """Return a database URL with its passwords replaced by ``***``."""
    parsed = make_url(url)
    hidden = {name: "***" for name in parsed.query if name.lower().endswith("password")}
    return parsed.update_query_dict(hidden).render_as_string().replace("%2A%2A%2A", "***")


def unusable(url: str, reason: str, way_out: str = "") -> DatabaseUnusable:
    """Return the error for a database that cannot be used, with its place, the reason and the way out."""
    try:
        place = str(sqlite_file(url) or masked(url))
    except (ArgumentError, ValueError):
        place = re.sub(r":[^:@]*@", ":***@", url)  # a password even in an URL that cannot be parsed
    way_out = way_out or f"Set {DATABASE_URL_VARIABLE} to another database, or move this one away."
    message = f"Registry database {place!r} cannot be used: {reason.strip().rstrip('.')}. {way_out}"
    return DatabaseUnusable(message, database=place, reason=reason)
