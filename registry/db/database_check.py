"""Check a registry's database: its pages, its references, its schema and its audit log."""

from contextlib import closing
from dataclasses import dataclass, field

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from . import HEAD
from .audit_log import serial_of, verify_log
from .database import Database, unusable
from .prepare import OUR_TABLES
from .schema_revision import find_revision
from .time_limits import TimeLimits

MOST = 5
"""Faults of a kind that are named."""

_UNHURRIED = TimeLimits(query=86400.0)


@dataclass(slots=True)
class CheckReport:
    """The outcome of checking a database.

    Attributes:
        serial: Serial of the registry; 0 if it cannot be read.
        sound: What was found in order, in words.
        faults: What was not.
    """

    serial: int = 0
    sound: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check_database(url: str) -> CheckReport:
    """Check a database without changing it.

    Raises:
        DatabaseUnusable: If it is not there, cannot be reached or is no registry.
    """
    report = CheckReport()
    with closing(Database(url, _UNHURRIED)) as database:
        if database.file and not database.file.exists():
            raise unusable(url, "it is not there", "loradar makes it on first use.")
        with database.read() as connection:
            names = set(inspect(connection).get_table_names())
            if not names >= OUR_TABLES:
                raise unusable(url, "it is not a loradar registry")
            if database.file:
                _check_pages(connection, report)
            else:
                report.sound.append("pages and references: checked by the server")
            if report.faults:
                return report  # what is read of damaged pages means nothing
            revision = find_revision(connection)
            report.serial = serial_of(connection)
            if revision != HEAD:
                direction = "an older" if str(revision) < HEAD else "a newer"
                report.faults.append(f"schema: revision {revision}, of {direction} loradar; this one has {HEAD}")
                return report
            report.sound.append(f"schema: revision {revision}")
            log = verify_log(connection)
            report.faults += [f"audit log: {fault}" for fault in log.faults]
            if not log.faults:
                report.sound.append(f"audit log: {log.entries} changes up to serial {log.serial}, head {log.head}")
    return report


def _check_pages(connection: Connection, report: CheckReport) -> None:
    """Read every page and index of an SQLite file, and look for rows that refer to none."""
    try:
        found = [row[0] for row in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST})")]
    except DBAPIError as error:
        found = [str(error.orig)]
    if found != ["ok"]:
        report.faults += [f"pages: {line}" for line in found]
        return
    report.sound.append("pages: all read, indexes complete")
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(MOST)
    report.faults += [f"references: row {row[1]} of {row[0]} refers to no row of {row[2]}" for row in rows]
    if not rows:
        report.sound.append("references: all lead to a row")
