"""The way in for writes, and to any database that is no SQLite file: SQLAlchemy engines and transactions."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from ...errors import MissingExtra
from .sqlite_reader import BUSY_SECONDS
from .urls import sqlite_file, unusable

POSTGRES_DRIVERS = {"psycopg", "psycopg2"}

CONNECT_SECONDS = 10
"""How long to wait for a server that does not answer: each question to it holds a thread."""

FIRST_USE_SECONDS = 600.0
"""How long to wait for another process that creates or upgrades an SQLite registry."""

_WAIT_OPTION = "busy_seconds"
"""Execution option: how long a transaction on SQLite waits for another writer, instead of ``BUSY_SECONDS``."""

_LOCK_KEY = 0x6C6F7261
"""Number of PostgreSQL's advisory lock for first use: ``lora`` in ASCII."""


def connect_to(url: str) -> Engine:
    """Return an engine for a database URL; nothing is opened yet.

    Raises:
        DatabaseUnusable: If the URL cannot be parsed or names an unknown kind of database.
        MissingExtra: If the driver for PostgreSQL is not installed.
    """
    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        engine = _sqlite_engine(parsed) if is_sqlite else _server_engine(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        way_out = "Use an URL such as sqlite:////path/registry.sqlite3 or postgresql://user@host/name."
        raise unusable(url, str(error), way_out) from error
    except ModuleNotFoundError as error:
        if error.name in POSTGRES_DRIVERS:
            raise MissingExtra(str(error.name), "postgres") from None
        raise unusable(url, str(error), "Use SQLite or PostgreSQL.") from error
    return engine


def _server_engine(url: URL) -> Engine:
    arguments = {"connect_timeout": CONNECT_SECONDS} if url.get_backend_name() == "postgresql" else {}
    return create_engine(url, connect_args=arguments, pool_pre_ping=True)


def _sqlite_engine(url: URL) -> Engine:
    # A database in memory lives as long as its one connection; a file is opened per write and let go again.
    in_memory = sqlite_file(url.render_as_string(hide_password=False)) is None
    arguments: dict[str, Any] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    pool = StaticPool if in_memory else NullPool
    engine = create_engine(url, connect_args=arguments, poolclass=pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    seconds = connection.get_execution_options().get(_WAIT_OPTION)
    if seconds is not None:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
    # The driver would begin too late: not for DDL, and after reading what it is about to change.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction; on SQLite it locks out other writers from its start.

    Raises:
        DatabaseUnusable: If the database cannot be reached or written.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise unusable(str(engine.url), str(error.orig)) from error
    except SQLAlchemyError as error:
        raise unusable(str(engine.url), str(error)) from error


class ConnectionReader:
    """Reads through one open connection, inside its transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, /, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a SELECT with ``:name`` parameters."""
        return [dict(row) for row in self._connection.execute(text(sql), values).mappings()]

    def list_tables(self) -> frozenset[str]:
        """Return the names of all tables."""
        return frozenset(inspect(self._connection).get_table_names())

    @contextmanager
    def steady(self) -> Iterator["ConnectionReader"]:
        """Lend itself: a transaction sees one state."""
        yield self

    def close(self) -> None:
        """Do nothing: whoever opened the connection closes it."""


class EngineReader:
    """Reads any database SQLAlchemy can reach, one connection of the pool per question."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self, sql: str, /, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a SELECT with ``:name`` parameters."""
        with transaction(self._engine) as connection:
            return ConnectionReader(connection).rows(sql, **values)

    def list_tables(self) -> frozenset[str]:
        """Return the names of all tables."""
        with transaction(self._engine) as connection:
            return ConnectionReader(connection).list_tables()

    @contextmanager
    def steady(self) -> Iterator[ConnectionReader]:
        """Lend a reader that sees one state of the database throughout, whatever is written meanwhile."""
        is_postgres = self._engine.dialect.name == "postgresql"
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ") if is_postgres else self._engine
        with transaction(engine) as connection:
            yield ConnectionReader(connection)

    def close(self) -> None:
        """Close every connection of the pool."""
        self._engine.dispose()


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
    """Let readers of an SQLite file go on during a write; a busy file keeps the mode it has."""
    if engine.dialect.name == "sqlite":
        with suppress(sqlite3.OperationalError), closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
