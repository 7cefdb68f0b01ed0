"""Check that a registry can be read and written, and is one of this version of loradar."""

import os
from pathlib import Path

from sqlalchemy import Connection

from . import HEAD
from .audit_log import serial_of
from .database import Database, unusable
from .prepare import find_revision

LEAST_FREE = 8 << 20
"""Bytes of a disk below which it counts as full: SQLite needs more than the rows of a write."""


def check_readiness(database: Database, *, is_thorough: bool) -> int:
    """Return the serial of a registry that can be read and written.

    Args:
        database: The database.
        is_thorough: Whether to read every page of an SQLite file, a tenth of a second for 30 MB.

    Raises:
        DatabaseUnusable: If it is out of reach, damaged, at the schema of another version, or cannot be written: its
            disk is full or read-only.
    """
    database.make()
    with database.read() as connection:
        revision = find_revision(connection)
        if revision != HEAD:
            reason = f"its schema is at revision {revision}, and this process of loradar knows {HEAD}"
            raise unusable(database.url, reason, "Restart the service with the version that changed it.")
        if database.file:
            _check_file(database.url, database.file, connection, is_thorough=is_thorough)
        return serial_of(connection)


def _check_file(url: str, file: Path, connection: Connection, *, is_thorough: bool) -> None:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() if is_thorough else "ok"
    if found != "ok":
        raise unusable(url, f"the file is damaged ({found})", "Restore a backup.")
    space = os.statvfs(file.parent)
    if space.f_flag & os.ST_RDONLY or not os.access(file, os.W_OK):
        raise unusable(url, "it can be read and not be written", "Make the file and its disk writable.")
    if space.f_bavail * space.f_frsize < LEAST_FREE:
        raise unusable(url, "its disk is full", f"Free at least {LEAST_FREE >> 20} MiB.")
