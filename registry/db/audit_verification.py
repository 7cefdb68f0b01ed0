"""Verify the audit log: recompute every digest, and compare every mapping revision with its id."""

import json
from collections.abc import Iterator

from sqlalchemy import Connection, RowMapping, select

from ...domain.changes import AuditLogReport
from ...domain.targets import TargetSpec
from . import tables
from .audit_log import FIRST, SUBJECTS, entry_digest
from .database import serial_of
from .encoding import MappingKey, mapping_id

PAGE = 1000
"""Rows read at once."""

MOST_FAULTS = 20
"""Faults listed; the others are counted."""


def verify_log(connection: Connection, expect: str | None = None) -> AuditLogReport:
    """Recompute the chain of the audit log and return its inconsistencies, and those of the revisions it names.

    Args:
        connection: In a transaction.
        expect: Digest of an entry, kept elsewhere, that must be in the log.
    """
    last = serial_of(connection)
    chain = _Chain()
    for entry in _entries(connection):
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

    Attributes:
        digests: Digests of the entries.
        mapping_ids: Ids of the mapping revisions they name.
    """

    def __init__(self) -> None:
        self.entries, self.serial, self.head = 0, 0, FIRST
        self.faults: list[str] = []
        self.digests: set[str] = set()
        self.mapping_ids: set[str] = set()

    def add(self, entry: RowMapping) -> None:
        """Compare an entry with its digest and with the entry before."""
        serial, digest = entry["serial"], entry_digest(dict(entry))
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


def _entries(connection: Connection) -> Iterator[RowMapping]:
    table, serial = tables.changes, -1
    query = select(table).order_by(table.c.serial).limit(PAGE)
    while rows := connection.execute(query.where(table.c.serial > serial)).mappings().all():
        yield from rows
        serial = rows[-1]["serial"]


def _mapping_faults(connection: Connection, named: set[str]) -> Iterator[str]:
    """Yield the revisions that were edited or deleted: the id of a revision is the digest of its content."""
    mappings, architectures = tables.mappings.c, tables.architectures.c
    query = (
        select(
            mappings.id,
            architectures.library,
            architectures.name,
            mappings.peft_type,
            mappings.preset,
            mappings.source_kind,
            mappings.revision,
            mappings.spec,
        )
        .join_from(tables.mappings, tables.architectures)
        .order_by(mappings.id)
        .limit(PAGE)
    )
    missing, last = set(named), ""
    while rows := connection.execute(query.where(mappings.id > last)).mappings().all():
        last = rows[-1]["id"]
        missing.difference_update(row["id"] for row in rows)
        for row in rows:
            if row["id"] != _id_of_content(row):
                yield f"mapping {row['id']} was altered: its id is not that of its content"
    yield from (f"mapping {deleted} is in the log, and gone" for deleted in sorted(missing))


def _id_of_content(row: RowMapping) -> str | None:
    """Return the id that the content of a row demands, or ``None`` if its spec is invalid."""
    key = MappingKey(row["library"], row["name"], row["peft_type"], row["preset"])
    try:
        spec = TargetSpec.from_dict(json.loads(row["spec"]))
    except (ValueError, AttributeError):
        return None
    return mapping_id(key, row["source_kind"], row["revision"], spec)
