"""The log of changes: one link per serial, each with the digest of the one before, so that none can be altered alone."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select

from . import tables
from .canonical import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST = "sha256:" + 64 * "0"
"""What stands for the link before the first."""

SUBJECTS = "subjects"
"""Where the details of a change name what it is about, such as ``architecture:transformers:llama``."""


def now() -> str:
    """Return the time as it is stored: ISO 8601 in UTC, always of one length, so that it sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def architecture_subject(library: str, name: str) -> str:
    """Return what an architecture is called in the log."""
    return f"architecture:{library}:{name}"


def mapping_subject(mapping_id: str) -> str:
    """Return what a revision of a mapping is called in the log."""
    return f"mapping:{mapping_id}"


def submission_subject(submission_id: int) -> str:
    """Return what a submission is called in the log."""
    return f"submission:{submission_id}"


def token_subject(token_id: int) -> str:
    """Return what a token is called in the log."""
    return f"token:{token_id}"


def link_digest(link: "Mapping[str, Any]") -> str:
    """Return the digest of a link: of everything in it but the digest itself, ``details`` as stored."""
    told = {name: link[name] for name in ("serial", "at", "actor", "action", "details", "previous")}
    return "sha256:" + sha256(canonical(told).encode()).hexdigest()


def append(
    connection: Connection, serial: int, actor: str, action: str, subjects: "Iterable[str]", details: dict[str, Any]
) -> None:
    """Add the link of a serial; its transaction holds the serial's lock."""
    table = tables.changes.c
    about = list(dict.fromkeys(subjects))
    previous = connection.execute(select(table.digest).order_by(table.serial.desc()).limit(1)).scalar()
    link = {
        "serial": serial,
        "at": now(),
        "actor": actor,
        "action": action,
        "details": canonical({SUBJECTS: about, **details}),
        "previous": previous or FIRST,
    }
    connection.execute(insert(tables.changes).values(**link, digest=link_digest(link)))
    if about:
        rows = [{"subject": subject, "serial": serial} for subject in about]
        connection.execute(insert(tables.change_subjects), rows)


def start_log(connection: Connection) -> None:
    """Start the log of a registry that had none, at the serial it has; an empty one starts with its first change."""
    serial = connection.execute(select(tables.serial.c.value)).scalar()
    if serial:
        append(connection, serial, "loradar", "log.start", (), {})
