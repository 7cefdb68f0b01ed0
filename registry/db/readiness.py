"""Check that a registry can be read, and written if it is to be, and is one of this version of loradar."""

import os
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select, text

from ...settings import READ_ONLY_VARIABLE
from . import tables
from .audit_log import serial_of
from .database import OTHER_VERSION, Database, unusable
from .schema_revision import explain_other

LEAST_FREE = 8 << 20
"""Bytes of a disk below which it counts as full: SQLite needs more than the rows of a write."""


_IS_STANDBY = text("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'")

Mode = Literal["read-write", "read-only", "mirror"]


@dataclass(frozen=True, slots=True)
class ReadyState:
    """The state of a registry that can be used.

    Attributes:
        serial: Its serial.
        mode: Whether it takes writes; a mirror takes those of its source.
        expires: Time from which a mirror should be taken for outdated.
    """

    serial: int
    mode: Mode
    expires: str | None


def check_readiness(database: Database, *, is_thorough: bool) -> ReadyState:
    """Return the state of a registry that can be read and, unless this process only reads, written.

    Args:
        database: The database.
        is_thorough: Whether to read every page of an SQLite file, a tenth of a second for 30 MB.

    Raises:
        DatabaseUnusable: If it is out of reach, damaged, at the schema of another version, or cannot be written: its
            disk is full or read-only.
    """
    database.make()
    with database.read() as connection:
        if reason := explain_other(connection):
            raise unusable(database.url, reason, OTHER_VERSION)
        if database.file:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() if is_thorough else "ok"
            if found != "ok":
                raise unusable(database.url, f"the file is damaged ({found})", "Restore a backup.")
        if not database.is_read_only:
            _check_writable(database, connection)
        expires = connection.execute(select(tables.mirror.c.expires)).scalar()
        mode: Mode = "read-only" if database.is_read_only else "mirror" if expires else "read-write"
        return ReadyState(serial_of(connection), mode, expires)


def _check_writable(database: Database, connection: Connection) -> None:
    """Raise ``DatabaseUnusable`` if a database can only be read: a full or read-only disk, a standby."""
    url, file = database.url, database.file
    if file is None:
        if connection.dialect.name == "postgresql" and connection.execute(_IS_STANDBY).scalar_one():
            raise unusable(
                url, "its server takes no writes", f"Name the primary server, or set {READ_ONLY_VARIABLE}=1."
            )
        return
    space = os.statvfs(file.parent)
    if space.f_flag & os.ST_RDONLY or not os.access(file, os.W_OK):
        way_out = f"Make the file and its disk writable, or set {READ_ONLY_VARIABLE}=1."
        raise unusable(url, "it can be read and not be written", way_out)
    if space.f_bavail * space.f_frsize < LEAST_FREE:
        raise unusable(url, "its disk is full", f"Free at least {LEAST_FREE >> 20} MiB.")
