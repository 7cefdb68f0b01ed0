"""Copy the audit log of a source, and verify that each entry follows on the one before."""

import json
from typing import Any

from sqlalchemy import Connection, insert

from ...errors import SnapshotRejected
from ...schema import canonical
from ..db import tables
from ..db.audit_log import FIRST, PAGE, SUBJECTS, WITHHELD, entry_digest, is_withheld

_FIELDS = ("serial", "at", "actor", "action", "previous", "digest")


class CopiedChanges:
    """The entries of a snapshot, which continue the log of the mirror.

    Args:
        connection: Connection in a transaction.
        known: Serial of the mirror, and the digest of its entry, which the source must still have; ``None`` if the
            mirror does not follow the source yet.
    """

    def __init__(self, connection: Connection, known: tuple[int, str | None]) -> None:
        self._connection = connection
        self._known_serial, self._known_head = known
        self._serial, self._head = 0, FIRST
        self._start, self._is_stored_to = 0, 0
        self._rows: list[dict[str, Any]] = []

    def start_after(self, serial: int, digest: str | None) -> None:
        """Continue after an entry that the mirror has, and store only those that it does not have."""
        self._start, self._serial, self._head = serial, serial, digest or FIRST
        self._is_stored_to = self._known_serial
        self._require_known()

    def add(self, change: dict[str, Any]) -> None:
        """Verify the next entry and store it.

        Raises:
            SnapshotRejected: If it does not follow on the one before, or is another one than the mirror has.
        """
        row = {**{name: change[name] for name in _FIELDS}, "details": canonical(change["details"])}
        if row["serial"] == self._start + 1 and row["previous"] != self._head:
            raise self._has_another(row["previous"])
        may_start = self._serial == 0 and row["action"] == "log.start"
        if (row["serial"] != self._serial + 1 and not may_start) or row["previous"] != self._head:
            raise _broken(f"entry {row['serial']} does not follow on entry {self._serial}")
        is_opaque = is_withheld(row["action"]) and change["details"] == WITHHELD
        if not is_opaque and entry_digest(row) != row["digest"]:
            raise _broken(f"entry {row['serial']} does not have the digest it was written with")
        self._serial, self._head = row["serial"], row["digest"]
        self._require_known()
        if self._serial > self._is_stored_to:
            self._rows.append(row)
        if len(self._rows) >= PAGE:
            self._flush()

    def finish(self, serial: int, head: str) -> None:
        """Store the rest.

        Raises:
            SnapshotRejected: If the entries do not end with the serial and head of the snapshot.
        """
        if (self._serial, self._head) != (serial, head):
            raise _broken(f"it ends with entry {self._serial}, {self._head}, and not with entry {serial}, {head}")
        self._flush()

    def _require_known(self) -> None:
        if self._known_head and self._serial == self._known_serial and self._head != self._known_head:
            raise self._has_another(self._head)

    def _has_another(self, digest: str) -> SnapshotRejected:
        message = (
            f"The source's log has another entry {self._serial} than this mirror: it was set back, or is another "
            "registry. If you trust it, give --reset."
        )
        return SnapshotRejected(message, serial=self._serial, found=digest)

    def _flush(self) -> None:
        if not self._rows:
            return
        self._connection.execute(insert(tables.changes), self._rows)
        subjects = [
            {"subject": subject, "serial": row["serial"]}
            for row in self._rows
            for subject in json.loads(row["details"]).get(SUBJECTS, ())
        ]
        if subjects:
            self._connection.execute(insert(tables.change_subjects), subjects)
        self._rows = []


def _broken(reason: str) -> SnapshotRejected:
    message = f"The audit log in the snapshot is broken: {reason}. Verify it at the source: loradar audit-log verify."
    return SnapshotRejected(message, reason=reason)
