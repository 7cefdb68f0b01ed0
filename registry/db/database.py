"""Give lock-free reads and serialised write transactions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import Connection, Executable, Select, Table, insert, select, update

from ...domain.identities import LOCAL
from . import audit_log, tables
from .engine import connect_to, for_reads, sqlite_file, transaction, unusable


class Database:
    """One database of the registry; each read and each write has a connection and a transaction of its own.

    Attributes:
        url: SQLAlchemy URL.
        engine: Engine of its connections.
        file: Path of a plain SQLite file, ``None`` for any other database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = connect_to(url)
        self.file = sqlite_file(url)
        self._reads = for_reads(self.engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one state of the database and locks out no writer.

        Raises:
            DatabaseUnusable: If the database cannot be reached or read.
        """
        self._require_file()
        with transaction(self._reads) as connection:
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
    def write_unlogged(self) -> Iterator[Connection]:
        """Run a write transaction outside the audit log, for bookkeeping that is no change of the registry.

        Raises:
            DatabaseUnusable: If the database cannot be reached or written.
        """
        self._require_file()
        with transaction(self.engine) as connection:
            yield connection

    def _require_file(self) -> None:
        """Raise an error if the file is gone: SQLite would create an empty one in its place."""
        if self.file and not self.file.exists():
            raise unusable(self.url, "it is not there any more", "Put it back, or start anew without it.")

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


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
    """

    def __init__(self, connection: Connection, action: str, actor: str) -> None:
        self.connection = connection
        self._entry = audit_log.Entry(actor, action)
        self._is_changed = False
        # Locks the row where the database can, so that two writers never count to the same number.
        current: int = connection.execute(select(tables.serial.c.value).with_for_update()).scalar_one()
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


def serial_of(connection: Connection) -> int:
    """Return the number of writes that changed the registry; the first is the seeding."""
    serial: int = connection.execute(select(tables.serial.c.value)).scalar_one()
    return serial
