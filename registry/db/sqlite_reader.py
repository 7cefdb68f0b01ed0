"""The fast way in: reads an SQLite file with the standard library, since importing SQLAlchemy takes 0.3 s."""

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .urls import unusable

MAGIC = b"SQLite format 3\x00"
"""What every SQLite file starts with."""

_File = tuple[int, int]
"""A file, whatever it is called: its device and its number there."""

BUSY_SECONDS = 30.0
"""How long to wait for another process's write."""


class SqliteReader:
    """Reads one SQLite file; it can change nothing, and several threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[tuple[_File, sqlite3.Connection]] = deque()

    def rows(self, sql: str, /, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a SELECT with ``:name`` parameters.

        Raises:
            DatabaseUnusable: If the file cannot be read as an SQLite database.
        """
        with self._connection() as connection:
            return _rows(connection, sql, values)

    @contextmanager
    def steady(self) -> Iterator["SqliteReader"]:
        """Lend a reader that sees one state of the file throughout, whatever is written meanwhile."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield _SteadyReader(self._path, connection)
            finally:
                connection.rollback()

    def list_tables(self) -> frozenset[str]:
        """Return the names of all tables."""
        rows = self.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'")
        return frozenset(row["name"] for row in rows)

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop()[1].close()

    def check(self) -> None:
        """Make sure that the file is empty or an SQLite database, before SQLite overwrites it for being short.

        Raises:
            DatabaseUnusable: If it is neither.
        """
        start = self._start()
        # A transaction without write-ahead log writes the first page last: while it fills a file, and after it was
        # cut short, the file begins with zeros.
        if start in (b"", MAGIC) or (start == bytes(len(MAGIC)) and self.has_journal()):
            return
        # The transaction may have ended between the two questions.
        if self._start() not in (b"", MAGIC):
            raise unusable(f"sqlite:///{self._path}", "file is not a database")

    def _start(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(len(MAGIC))
        except OSError as error:
            raise unusable(f"sqlite:///{self._path}", error.strerror or str(error)) from error

    def has_journal(self) -> bool:
        """Return whether a transaction without write-ahead log is going on or was cut short.

        SQLite undoes one that was cut short when the file is next opened for writing; a reader cannot.
        """
        try:
            return Path(f"{self._path.resolve()}-journal").stat().st_size > 0
        except OSError:
            return False

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one thread; one that failed is not lent again."""
        connection = None
        file = self._file()
        try:
            connection = self._lend(file)
            yield connection
        except sqlite3.Error as error:
            if connection:
                connection.close()
            raise unusable(f"sqlite:///{self._path}", str(error)) from error
        except BaseException:
            if connection:
                connection.close()
            raise
        self._idle.append((file, connection))

    def _lend(self, file: _File) -> sqlite3.Connection:
        with suppress(IndexError):
            while True:
                opened, connection = self._idle.pop()
                if opened == file:
                    return connection
                connection.close()
        uri = f"{self._path.as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)

    def _file(self) -> _File:
        """Return which file is there now: a connection would go on reading one that was moved away."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise unusable(f"sqlite:///{self._path}", error.strerror or str(error)) from error
        return status.st_dev, status.st_ino


class _SteadyReader(SqliteReader):
    """Reads through one connection, whose transaction its lender ends."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path)
        self._own = connection

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        yield self._own


def _rows(connection: sqlite3.Connection, sql: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
