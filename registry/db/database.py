"""Connect to a database, give lock-free reads and serialised write transactions, and report unusable databases."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Self

from sqlalchemy import Connection, Engine, Executable, Select, Table, create_engine, event, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from ...domain.identities import LOCAL
from ...errors import DatabaseBusy, DatabaseUnusable, MissingExtra, ReadOnly
from ...settings import DATABASE_URL_VARIABLE, READ_ONLY_VARIABLE
from . import audit_log, tables
from .schema_revision import explain_other
from .shipped import uri_of
from .time_limits import (
    END_OPTION,
    LOCAL_LIMITS,
    READ_OPTION,
    WAIT_OPTION,
    TimeLimits,
    explain,
    limit_postgres,
    limit_sqlite,
)
from .turns import Turns

POSTGRES_DRIVERS = {"psycopg", "psycopg2"}

CONNECT_SECONDS = 10
"""How long to wait for a server that does not respond: each request to it occupies a thread."""

FIRST_USE_SECONDS = 600.0
"""How long to wait for another process that creates or upgrades an SQLite registry."""

RETRY_SECONDS = 2
"""When a write may come again that did not get its turn."""

OTHER_VERSION = "Restart the service with the version that changed it."
"""The way out where another version of loradar has upgraded the database of a process that runs."""

_LOCK_KEY = 0x6C6F7261
"""Number of PostgreSQL's advisory lock for first use: ``lora`` in ASCII."""


class Database:
    """One database of the registry; each read and each write has a connection and a transaction of its own.

    Attributes:
        url: SQLAlchemy URL.
        engine: Engine of its connections.
        file: Path of a plain SQLite file, ``None`` for any other database.
        limits: Time limits of waiting and of queries.
        is_read_only: Whether nothing is written by this process.
    """

    def __init__(self, url: str, limits: TimeLimits = LOCAL_LIMITS, *, is_read_only: bool = False) -> None:
        self.url = url
        self.is_read_only = is_read_only
        self.limits = limits
        self.engine = connect_to(url, limits)
        self.file = sqlite_file(url)
        self._turns = Turns(self.file.parent) if self.file else None
        is_postgres = self.engine.dialect.name == "postgresql"
        options = {"isolation_level": "REPEATABLE READ"} if is_postgres else {READ_OPTION: True}
        self._reads = self.engine.execution_options(**options)
        self._stand_in: Engine | None = None
        self._make: Callable[[], None] = lambda: None
        self._making = Lock()

    def stand_in(self, shipped: Path, make: Callable[[], None]) -> None:
        """Read a packaged registry until this database's file is there.

        Args:
            shipped: The packaged registry.
            make: Make the file, or wait for another process that does; called before the first write.
        """
        self._stand_in, self._make = _connect_to_shipped(shipped, self.limits), make

    def is_stood_in(self) -> bool:
        """Return whether the packaged registry is read in the place of a file that is not made yet."""
        return self._stand_in is not None and not (self.file and self.file.exists())

    def make(self) -> None:
        """Make the file of this database if it is not made yet; from now on it is read.

        Raises:
            DatabaseUnusable: If it cannot be made.
        """
        with self._making:
            if self._stand_in and not self.is_read_only:
                self._make()
                self._stand_in.dispose()
                self._stand_in = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one state of the database and locks out no writer.

        Raises:
            DatabaseUnusable: If the database cannot be reached or read.
        """
        stand_in = self._stand_in
        if stand_in and self.is_stood_in():
            with transaction(stand_in, self.limits) as connection:
                yield connection
            return
        self.make()
        self._require_file()
        with transaction(self._reads, self.limits) as connection:
            yield connection

    @contextmanager
    def write(self, action: str, actor: str = LOCAL.name) -> Iterator["Transaction"]:
        """Run a write transaction with its entry in the audit log; other writers wait for its end.

        Args:
            action: Operation, such as ``scan.store``.
            actor: Name of the person or program that writes.

        Raises:
            DatabaseUnusable: If the database cannot be reached or written.
        """
        with self.write_unlogged() as connection, Transaction(connection, action, actor) as write:
            yield write

    @contextmanager
    def write_unlogged(self, seconds: float | None = None) -> Iterator[Connection]:
        """Run a write transaction outside the audit log, for bookkeeping that is no change of the registry.

        Writers of an SQLite file take turns: see ``Turns``.

        Args:
            seconds: How long it waits for other writers; if not given, as long as the limits say.

        Raises:
            DatabaseUnusable: If the database cannot be reached or written.
            ReadOnly: If this process writes nothing.
        """
        if self.is_read_only:
            message = f"Nothing is written here, because {READ_ONLY_VARIABLE} is set. Unset it, or write elsewhere."
            raise ReadOnly(message, variable=READ_ONLY_VARIABLE)
        self.make()
        self._require_file()
        seconds = self.limits.busy if seconds is None else seconds
        end = time.monotonic() + seconds
        engine = self.engine.execution_options(**{END_OPTION: end}) if self._turns else self.engine
        with ExitStack() as whole, ExitStack() as beginning:
            if self._turns:
                if not whole.enter_context(self._turns.turn(seconds)):
                    raise busy(f"Other writers have kept the registry's database for {seconds:g} s")
                beginning.enter_context(self._turns.first_in_line(end))
            connection = whole.enter_context(transaction(engine, self.limits))
            beginning.close()
            yield connection

    def _require_file(self) -> None:
        """Raise an error if the file is gone: SQLite would create an empty one in its place."""
        if self.file and not self.file.exists():
            raise unusable(self.url, "it is not there any more", "Put it back, or start anew without it.")

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        if self._stand_in:
            self._stand_in.dispose()


class Transaction:
    """A write transaction; at the end of its ``with`` block it counts the serial up and appends to the audit log.

    If nothing changed, neither happens.

    Args:
        connection: Connection in a transaction.
        action: Operation, such as ``scan.store``.
        actor: Name of the person or program that writes.

    Attributes:
        connection: For reads within the transaction.
        serial: Serial of the registry after the transaction, if anything changes.

    Raises:
        DatabaseUnusable: If the schema is another version's.
        ReadOnly: If the registry mirrors another one.
    """

    def __init__(self, connection: Connection, action: str, actor: str) -> None:
        require_own_schema(connection)
        self.connection = connection
        self._entry = audit_log.Entry(actor, action)
        self._is_changed = False
        # Locks the row where the database can, so that two writers never count to the same number.
        current: int = connection.execute(select(tables.serial.c.value).with_for_update()).scalar_one()
        if audit_log.is_mirror(connection):
            way_out = "Write to its source, which the mirror then follows, or to a registry of its own."
            raise ReadOnly(f"This registry mirrors another one and takes no {action!r} of its own. {way_out}")
        self.serial = current + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._is_changed:
            self.connection.execute(update(tables.serial).values(value=self.serial))
            audit_log.append(self.connection, self.serial, self._entry)

    @property
    def final_serial(self) -> int:
        """Serial after the transaction, as far as it got."""
        return self.serial if self._is_changed else self.serial - 1

    def log(self, *subjects: str, **details: Any) -> None:
        """Add subjects and details to the entry of the audit log."""
        self._entry.subjects += subjects
        self._entry.details |= details

    def select(self, query: Select[Any]) -> list[dict[str, Any]]:
        """Return the rows of a query as dictionaries."""
        return [dict(row) for row in self.connection.execute(query).mappings()]

    def change(self, statement: Executable, rows: Sequence[dict[str, Any]] | None = None) -> None:
        """Execute a statement that changes the registry; with ``rows``, once for each."""
        if rows is None or rows:
            self.connection.execute(statement, rows)
            self._is_changed = True

    def insert(self, table: Table, **values: Any) -> int:
        """Insert a row and return the id the database gave it."""
        number: int = self.connection.execute(insert(table).values(**values).returning(table.c.id)).scalar_one()
        self._is_changed = True
        return number


def connect_to(url: str, limits: TimeLimits = LOCAL_LIMITS) -> Engine:
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
            engine = create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
            if backend == "postgresql":
                limit_postgres(engine, limits)
            return engine
        file = sqlite_file(url)
        # A database in memory lives as long as its one connection.
        pool: dict[str, Any] = {"max_overflow": -1} if file else {"poolclass": StaticPool}
        options = {"timeout": limits.busy, "check_same_thread": False}
        engine = create_engine(parsed, connect_args=options, **pool)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        way_out = "Use an URL such as sqlite:////path/registry.sqlite3 or postgresql://user@host/name."
        raise unusable(url, str(error), way_out) from error
    except ModuleNotFoundError as error:
        if error.name in POSTGRES_DRIVERS:
            raise MissingExtra(str(error.name), "postgres") from None
        raise unusable(url, str(error), "Use SQLite or PostgreSQL.") from error
    limit_sqlite(engine, limits)
    if file:
        _follow(engine, file)
    return engine


def _connect_to_shipped(file: Path, limits: TimeLimits) -> Engine:
    """Create an engine that reads a packaged registry; nothing is opened yet."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(uri_of(file), uri=True, check_same_thread=False),
        poolclass=QueuePool,
        max_overflow=-1,
    )
    limit_sqlite(engine, limits)
    return engine.execution_options(**{READ_OPTION: True})


def _follow(engine: Engine, file: Path) -> None:
    """Close pooled connections to a file that was moved away or replaced."""

    def identify() -> tuple[int, int] | None:
        with suppress(OSError):
            status = file.stat()
            return status.st_dev, status.st_ino
        return None

    @event.listens_for(engine, "connect")
    def note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["file"] = identify()

    @event.listens_for(engine, "checkout")
    def check(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        if record.info["file"] != identify():
            raise DisconnectionError


@contextmanager
def transaction(engine: Engine, limits: TimeLimits = LOCAL_LIMITS) -> Iterator[Connection]:
    """Run one transaction; on SQLite it locks out other writers from its start.

    Raises:
        DatabaseBusy: If it ends at one of the limits.
        DatabaseUnusable: If the database cannot be reached or written.
    """
    url = engine.url.render_as_string(hide_password=False)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        if reason := explain(error, limits):
            raise busy(reason) from error
        raise unusable(url, str(error.orig)) from error
    except SQLAlchemyError as error:
        raise unusable(url, str(error)) from error


@contextmanager
def first_use_transaction(engine: Engine) -> Iterator[Connection]:
    """Run the transaction that creates or upgrades a registry; other processes about to do so wait for its end.

    Raises:
        DatabaseUnusable: If the database cannot be reached or written.
    """
    with transaction(engine.execution_options(**{WAIT_OPTION: FIRST_USE_SECONDS})) as connection:
        if connection.dialect.name == "postgresql":
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(text(f"SET LOCAL {name} = 0"))
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


def require_own_schema(connection: Connection) -> None:
    """Raise ``DatabaseUnusable`` if another version changed the schema: what is written might lack what it needs."""
    if reason := explain_other(connection):
        raise unusable(connection.engine.url.render_as_string(hide_password=False), reason, OTHER_VERSION)


def busy(reason: str) -> DatabaseBusy:
    """Return the error for a transaction that reached one of its time limits."""
    message = f"{reason}. Try again in {RETRY_SECONDS} s."
    return DatabaseBusy(message, reason=reason, retry_after=RETRY_SECONDS)
