"""The log of changes: one link per serial, each with the digest of the one before; none can be altered alone."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select

from . import tables
from .audit_links import FIRST, link_digest
from .canonical import canonical
from .times import now

SUBJECTS = "subjects"
"""Where the details of a change name what it is about, such as ``architecture:transformers:llama``."""


@dataclass
class Entry:
    """What a change is, as far as it is known.

    Attributes:
        actor: Name of who does it.
        action: What is done, such as ``scan.store``.
        subjects: What it is about.
        details: The rest, JSON-ready.
    """

    actor: str
    action: str
    subjects: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def append(connection: Connection, serial: int, entry: Entry) -> None:
    """Add the link of a serial; its transaction holds the serial's lock."""
    table = tables.changes.c
    about = list(dict.fromkeys(entry.subjects))
    previous = connection.execute(select(table.digest).order_by(table.serial.desc()).limit(1)).scalar()
    link = {
        "serial": serial,
        "at": now(),
        "actor": entry.actor,
        "action": entry.action,
        "details": canonical({SUBJECTS: about, **entry.details}),
        "previous": previous or FIRST,
    }
    connection.execute(insert(tables.changes).values(**link, digest=link_digest(link)))
    if about:
        connection.execute(insert(tables.change_subjects), [{"subject": one, "serial": serial} for one in about])


def start_log(connection: Connection) -> None:
    """Start the log of a registry that had none, at the serial it has; an empty one starts with its first change."""
    serial = connection.execute(select(tables.serial.c.value)).scalar()
    if serial:
        append(connection, serial, Entry("loradar", "log.start"))
