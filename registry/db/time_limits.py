"""Limit the time that a transaction waits for other writers, and the time of each query."""

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

WAIT_OPTION = "busy_seconds"
"""Execution option: seconds a transaction on SQLite waits for another writer, for one whose queries have no limit."""

READ_OPTION = "read_only"
"""Execution option: whether a transaction on SQLite only reads, and so must not lock out writers."""

END_OPTION = "busy_end"
"""Execution option: monotonic time until which a transaction on SQLite waits for another writer."""

LOOK_EVERY = 0.001
"""Seconds between two attempts of a writer to begin. SQLite itself looks ever more rarely, up to ten times a second."""

STEPS = 50_000
"""Instructions of SQLite's machine between two looks at the clock: about a millisecond."""

_LOCKED, _OUT_OF_TIME = "55P03", "57014"
"""PostgreSQL's codes."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The time limits of a process.

    Attributes:
        busy: Seconds that a write waits for other writers.
        query: Seconds that one query may take; creating and upgrading a registry have no limit.
    """

    busy: float = 30.0
    query: float = 600.0


LOCAL_LIMITS = TimeLimits()

SERVICE_LIMITS = TimeLimits(busy=5.0, query=15.0)
"""Limits of a service: whoever waits there occupies a thread, and can come again."""


def limit_sqlite(engine: Engine, limits: TimeLimits) -> None:
    """Begin transactions on time, and interrupt queries of SQLite that take too long."""

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        ends = record.info["ends"] = [float("inf")]
        connection.set_progress_handler(lambda: time.monotonic() > ends[0], STEPS)

    @event.listens_for(engine, "before_cursor_execute")
    def start_clock(connection: Connection, *_: object) -> None:
        is_limited = WAIT_OPTION not in connection.get_execution_options()
        connection.info["ends"][0] = time.monotonic() + limits.query if is_limited else float("inf")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if WAIT_OPTION in options:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {options[WAIT_OPTION] * 1000:.0f}")
        # The driver would begin too late: not for DDL, and after reading what it is about to change.
        if options.get(READ_OPTION):
            connection.exec_driver_sql("BEGIN")
        elif END_OPTION in options:
            _begin_by(connection, options[END_OPTION], limits.busy)
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_by(connection: Connection, end: float, busy: float) -> None:
    """Begin to write as soon as no other process does, by a monotonic time."""
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while time.monotonic() < end:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if not is_busy(error):
                    break
            else:
                return
            time.sleep(LOOK_EVERY)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # whose error becomes SQLAlchemy's
    finally:
        driver.execute(f"PRAGMA busy_timeout = {busy * 1000:.0f}")


def limit_postgres(engine: Engine, limits: TimeLimits) -> None:
    """Have the server end queries that take too long, and the transactions of a client that sends nothing more."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        settings = {"lock_timeout": limits.busy, "statement_timeout": limits.query}
        settings["idle_in_transaction_session_timeout"] = limits.query
        with connection.cursor() as cursor:
            for name, seconds in settings.items():
                cursor.execute(f"SET {name} = {seconds * 1000:.0f}")
        connection.commit()


def is_busy(error: BaseException | None) -> bool:
    """Return whether a driver's error means that other writers did not end in time."""
    if isinstance(error, sqlite3.Error):
        return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_BUSY
    return getattr(error, "sqlstate", None) == _LOCKED


def is_out_of_time(error: BaseException | None) -> bool:
    """Return whether a driver's error means that a query was ended for the time it took."""
    if isinstance(error, sqlite3.Error):
        return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_INTERRUPT
    return getattr(error, "sqlstate", None) == _OUT_OF_TIME


def explain(error: DBAPIError, limits: TimeLimits) -> str | None:
    """Return in words which limit an error comes from; ``None`` if from none."""
    if is_busy(error.orig):
        return f"Other writers have kept the registry's database for {limits.busy:g} s"
    if is_out_of_time(error.orig):
        return f"A query of the registry's database took more than {limits.query:g} s, and was ended"
    return None
