"""One transaction of changes, the serial it counts up, and its link in the log."""

from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy import Connection, Executable, Select, Table, and_, insert, select, text, update

from . import audit_log as log
from . import tables
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
        self._entry = log.Entry(actor, action)
        # Locks the row where the database can, so that two writers never count to the same number.
        current: int = connection.execute(select(tables.serial.c.value).with_for_update()).scalar_one()
        self.serial = current + 1
        self.reader = ConnectionReader(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._changed:
            self._connection.execute(update(tables.serial).values(value=self.serial))
            log.append(self._connection, self.serial, self._entry)

    @property
    def outcome(self) -> int:
        """The serial after this write."""
        return self.serial if self._changed else self.serial - 1

    def tell(self, *subjects: str, **details: Any) -> None:
        """Say what the change is about, for the log; it is written only if something changes."""
        self._entry.subjects += subjects
        self._entry.details |= details

    def change(self, statement: Executable, rows: Sequence[dict[str, Any]] | None = None) -> None:
        """Run a statement that changes something; with ``rows``, once for each."""
        if rows is None or rows:
            self._connection.execute(statement, rows)
            self._changed = True

    def run(self, sql: str, /, **values: Any) -> None:
        """Run one statement with ``:name`` parameters that changes something."""
        self._connection.execute(text(sql), values)
        self._changed = True

    def insert(self, table: str, **values: Any) -> None:
        """Insert one row; the names are of our own making, the values are bound."""
        names = ", ".join(values)
        self.run(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})", **values)  # noqa: S608

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
