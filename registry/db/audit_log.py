"""Append to the audit log: one entry per serial, each with the digest of the one before."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select

from . import tables
from .encoding import canonical, digest_of, now

FIRST = "sha256:" + 64 * "0"
"""The ``previous`` digest of the first entry."""

SUBJECTS = "subjects"
"""Key in the details of an entry for the records it is about, such as ``architecture:transformers:llama``."""


@dataclass
class Entry:
    """An entry of the audit log in the making.

    Attributes:
        actor: Name of the person or program that writes.
        action: Operation, such as ``scan.store``.
        subjects: Records the entry is about.
        details: Further values, JSON-ready.
    """

    actor: str
    action: str
    subjects: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def append(connection: Connection, serial: int, entry: Entry) -> None:
    """Append an entry under a serial; the transaction must hold the serial's lock."""
    table = tables.changes.c
    subjects = list(dict.fromkeys(entry.subjects))
    previous = connection.execute(select(table.digest).order_by(table.serial.desc()).limit(1)).scalar()
    row = {
        "serial": serial,
        "at": now(),
        "actor": entry.actor,
        "action": entry.action,
        "details": canonical({SUBJECTS: subjects, **entry.details}),
        "previous": previous or FIRST,
    }
    connection.execute(insert(tables.changes).values(**row, digest=entry_digest(row)))
    if subjects:
        rows = [{"subject": subject, "serial": serial} for subject in subjects]
        connection.execute(insert(tables.change_subjects), rows)


def entry_digest(row: Mapping[str, Any]) -> str:
    """Return the digest of an entry: of every column but the digest itself, ``details`` as stored."""
    return digest_of({name: row[name] for name in ("serial", "at", "actor", "action", "details", "previous")})


def start_log(connection: Connection) -> None:
    """Start the log of a registry without one at its present serial; an empty registry starts with its first change."""
    serial = connection.execute(select(tables.serial.c.value)).scalar()
    if serial:
        append(connection, serial, Entry("loradar", "log.start"))


def architecture_subject(library: str, name: str) -> str:
    """Return the name of an architecture in the log."""
    return f"architecture:{library}:{name}"


def mapping_subject(mapping_id: str) -> str:
    """Return the name of a mapping revision in the log."""
    return f"mapping:{mapping_id}"


def submission_subject(submission_id: int) -> str:
    """Return the name of a submission in the log."""
    return f"submission:{submission_id}"


def token_subject(token_id: int) -> str:
    """Return the name of a token in the log."""
    return f"token:{token_id}"
