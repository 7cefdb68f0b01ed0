"""Append to the audit log, one entry per serial, each with the digest of the one before; and verify it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, insert, select

from ...domain.changes import AuditLogReport
from ...domain.targets import TargetSpec
from ...schema import canonical
from . import tables
from .encoding import MappingKey, digest_of, mapping_id, now
from .watch import State

FIRST = "sha256:" + 64 * "0"
"""The ``previous`` digest of the first entry."""

SUBJECTS = "subjects"
"""Key in the details of an entry for the records it is about, such as ``architecture:transformers:llama``."""

WITHHELD = {"withheld": True}
"""What others get in place of the details of a change that ``is_withheld``."""

PAGE = 1000
"""Rows that verifying reads at once."""

MOST_FAULTS = 20
"""Faults listed; the others are counted."""


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


def is_withheld(action: str) -> bool:
    """Return whether only an admin may read the details of a change: who has a token, and which role."""
    return action.startswith("token.")


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


def serial_of(connection: Connection) -> int:
    """Return the number of writes that changed the registry; the first is the seeding."""
    serial: int = connection.execute(select(tables.serial.c.value)).scalar_one()
    return serial


def is_mirror(connection: Connection) -> bool:
    """Return whether a registry is a copy of another one."""
    return connection.execute(select(tables.mirror.c.id)).first() is not None


def state_of(connection: Connection) -> State:
    """Return the serial and the digest of the last change."""
    digest = select(tables.changes.c.digest).order_by(tables.changes.c.serial.desc()).limit(1).scalar_subquery()
    serial, head = connection.execute(select(tables.serial.c.value, digest)).one()
    return serial, head


def verify_log(connection: Connection, expect: str | None = None) -> AuditLogReport:
    """Recompute the chain of the audit log and return its inconsistencies, and those of the revisions it names.

    Args:
        connection: In a transaction.
        expect: Digest of an entry, kept elsewhere, that must be in the log.
    """
    last = serial_of(connection)
    chain = _Chain(is_copy=is_mirror(connection))
    for entry in _rows(connection, select(tables.changes), tables.changes.c.serial):
        chain.add(entry)
    faults = [*chain.faults]
    if chain.serial < last:
        faults.append(f"serial {_between(chain.serial + 1, last)} missing at the end")
    if expect is not None and expect not in chain.digests:
        faults.append(f"{expect}, kept elsewhere, is not in the log: it was cut off or written anew")
    faults += _mapping_faults(connection, chain.mapping_ids)
    left = len(faults) - MOST_FAULTS
    bounded = faults if left <= 0 else [*faults[:MOST_FAULTS], f"and {left} more"]
    return AuditLogReport(chain.entries, chain.serial, chain.head, tuple(bounded))


class _Chain:
    """The entries so far and their inconsistencies.

    Args:
        is_copy: Whether the log is that of a mirror, which does not have the details of tokens.

    Attributes:
        digests: Digests of the entries.
        mapping_ids: Ids of the mapping revisions they name.
    """

    def __init__(self, *, is_copy: bool) -> None:
        self._is_copy = is_copy
        self.entries, self.serial, self.head = 0, 0, FIRST
        self.faults: list[str] = []
        self.digests: set[str] = set()
        self.mapping_ids: set[str] = set()

    def add(self, entry: RowMapping) -> None:
        """Compare an entry with its digest and with the entry before."""
        serial, digest = entry["serial"], entry_digest(dict(entry))
        if self._is_copy and is_withheld(entry["action"]) and entry["details"] == canonical(WITHHELD):
            digest = entry["digest"]  # the next entry still has to follow on it
        may_start = self.entries == 0 and entry["action"] == "log.start"
        if serial != self.serial + 1 and not may_start:
            self.faults.append(f"serial {_between(self.serial + 1, serial - 1)} missing")
        if digest != entry["digest"]:
            self.faults.append(f"serial {serial} was altered: it does not have the digest it was written with")
        if entry["previous"] != self.head:
            self.faults.append(f"serial {serial} does not follow on the one before: its 'previous' is another digest")
        self.entries, self.serial, self.head = self.entries + 1, serial, entry["digest"]
        self.digests.add(digest)
        try:
            subjects = json.loads(entry["details"])[SUBJECTS]
            self.mapping_ids |= {s.removeprefix("mapping:") for s in subjects if s.startswith("mapping:")}
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # altered details need not be JSON any more, and are reported above


def _between(first: int, last: int) -> str:
    return f"{first} is" if first == last else f"{first} to {last} are"


def _mapping_faults(connection: Connection, named: set[str]) -> Iterator[str]:
    """Yield the revisions that were edited or deleted: the id of a revision is the digest of its content."""
    mappings, architectures = tables.mappings.c, tables.architectures.c
    content = (mappings.peft_type, mappings.preset, mappings.source_kind, mappings.revision, mappings.spec)
    query = select(mappings.id, architectures.library, architectures.name, *content)
    missing = set(named)
    for row in _rows(connection, query.join_from(tables.mappings, tables.architectures), mappings.id):
        missing.discard(row["id"])
        key = MappingKey(row["library"], row["name"], row["peft_type"], row["preset"])
        try:
            spec = TargetSpec.from_dict(json.loads(row["spec"]))
            is_intact = row["id"] == mapping_id(key, row["source_kind"], row["revision"], spec)
        except (ValueError, AttributeError):
            is_intact = False  # an altered spec need not be one any more
        if not is_intact:
            yield f"mapping {row['id']} was altered: its id is not that of its content"
    yield from (f"mapping {deleted} is in the log, and gone" for deleted in sorted(missing))


def _rows(connection: Connection, query: Select[Any], column: ColumnElement[Any]) -> Iterator[RowMapping]:
    """Yield the rows of a query by a unique column, read a page at a time."""
    query = query.order_by(column).limit(PAGE)
    rows = connection.execute(query).mappings().all()
    while rows:
        yield from rows
        rows = connection.execute(query.where(column > rows[-1][column])).mappings().all()
