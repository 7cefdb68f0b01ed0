"""The way to one database: reads at once, writes one transaction at a time."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...domain.identities import LOCAL
from .schema import Reader
from .urls import sqlite_file, unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from .transaction import Write


class Access:
    """What every part of a registry reads and writes through.

    Attributes:
        url: SQLAlchemy URL of the database.
        reader: Reads outside any transaction of ours.
    """

    def __init__(self, url: str, reader: Reader, engine: "Engine | None" = None) -> None:
        self.url = url
        self.reader = reader
        self._engine = engine

    @contextmanager
    def transaction(self) -> "Iterator[Connection]":
        """Run one transaction that is no change of the registry: it counts no serial and is not logged.

        Raises:
            DatabaseUnusable: If the database cannot be reached or written.
        """
        from .engine import connect_to, transaction  # noqa: PLC0415 - SQLAlchemy, 0.3 s

        self._require_file()
        self._engine = self._engine or connect_to(self.url)
        with transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def writing(self, action: str, actor: str = LOCAL.name) -> "Iterator[Write]":
        """Run one transaction of changes, logged under its action and who does it.

        Raises:
            DatabaseUnusable: If the database cannot be reached or written.
        """
        from .transaction import Write  # noqa: PLC0415 - SQLAlchemy, 0.3 s

        with self.transaction() as connection, Write(connection, actor, action) as write:
            yield write

    def _require_file(self) -> None:
        """Write to no file that is not there any more: SQLite would make an empty one in its place."""
        path = sqlite_file(self.url)
        if path and not path.exists():
            raise unusable(self.url, "it is not there any more", "Put it back, or start anew without it.")

    def close(self) -> None:
        """Close every connection."""
        self.reader.close()
        if self._engine:
            self._engine.dispose()
