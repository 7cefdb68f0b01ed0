"""One transaction of changes, the serial it counts up, and its link in the log."""

from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy import Connection, Executable, Select, Table, and_, insert, select, update

from . import log, tables
from .engine import ConnectionReader


class Write:
    """One transaction's changes; as a context it bumps the serial and logs at its end if there were any.

    Args:
        connection: In a transaction.
        actor: Name of who changes something.
        action: What is done, such as ``scan.store``.

    Attributes:
        serial: What the serial will be if anything changes.
        reader: Reads inside the transaction.
    """

    def __init__(self, connection: Connection, actor: str, action: str) -> None:
        self._connection = connection
        self._changed = False
        self._actor, self._action = actor, action
        self._subjects: list[str] = []
        self._details: dict[str, Any] = {}
        # Locks the row where the database can, so that two writers never count to the same number.
        current: int = connection.execute(select(tables.serial.c.value).with_for_update()).scalar_one()
        self.serial = current + 1
        self.reader = ConnectionReader(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._changed:
            self._connection.execute(update(tables.serial).values(value=self.serial))
            log.append(self._connection, self.serial, self._actor, self._action, self._subjects, self._details)

    @property
    def actor(self) -> str:
        """Name of who changes something."""
        return self._actor

    @property
    def outcome(self) -> int:
        """The serial after this write."""
        return self.serial if self._changed else self.serial - 1

    def tell(self, *subjects: str, **details: Any) -> None:
        """Say what the change is about, for the log; it is written only if something changes."""
        self._subjects += subjects
        self._details |= details

    def change(self, statement: Executable, rows: Sequence[dict[str, Any]] | None = None) -> None:
        """Run a statement that changes something; with ``rows``, once for each."""
        if rows is None or rows:
            self._connection.execute(statement, rows)
            self._changed = True

    def select(self, statement: Select[Any]) -> list[dict[str, Any]]:
        """Return the rows of a SELECT."""
        return [dict(row) for row in self._connection.execute(statement).mappings()]

    def get_or_add(self, table: Table, **values: Any) -> int:
        """Return the id of the row with these values; it is inserted if there is none."""
        wanted = and_(*(table.c[name] == value for name, value in values.items()))
        found: int | None = self._connection.execute(select(table.c.id).where(wanted)).scalar()
        if found is None:
            self.change(insert(table).values(**values))
            return self.get_or_add(table, **values)
        return found
