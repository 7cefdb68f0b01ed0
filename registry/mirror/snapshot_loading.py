"""Load the snapshots of another registry: verify one whole, then replace the rows that it names, in one transaction.

The rules against old and exchanged files are those of The Update Framework (its specification 1.0, section 5.4): a
signature by a key known beforehand, an end of validity, and a serial that never decreases.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update

from ...domain.changes import MirrorState
from ...errors import SignatureInvalid, SnapshotRejected
from ...snapshots import SnapshotInfo, check_snapshot, open_snapshot, require_current
from ..db import tables
from ..db.audit_log import FIRST, serial_of
from ..db.database import Database, require_own_schema
from ..db.encoding import now
from .copied_changes import CopiedChanges
from .copied_rows import CopiedRows
from .snapshot_writing import can_tell_since

_mirror, _changes = tables.mirror, tables.changes.c

EMPTIED = (
    tables.verifications,
    tables.mappings,
    tables.renames,
    tables.slots,
    tables.architectures,
    tables.change_subjects,
    tables.changes,
)
"""The tables whose rows a whole snapshot replaces, those that refer to others first."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The outcome of loading a snapshot into a mirror.

    Attributes:
        snapshot: The snapshot.
        before: Serial of the registry before.
        serial: Serial of the registry now.
        is_new: Whether it was not loaded already.
    """

    snapshot: SnapshotInfo
    before: int
    serial: int
    is_new: bool


class Mirror:
    """The registry as a mirror of another one, its source."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> MirrorState | None:
        """Return the snapshot loaded last; ``None`` if the registry is no mirror."""
        with self._database.read() as connection:
            return _find_state(connection)

    def can_tell_since(self, since: int) -> bool:
        """Return whether the changes after a serial name the architectures they touched; a seed touches all."""
        with self._database.read() as connection:
            return can_tell_since(connection, since)

    def load(self, path: Path, key: str, *, is_reset: bool = False) -> LoadReport:
        """Load a snapshot, plain or compressed; it is loaded whole, or nothing changes.

        Args:
            path: The file.
            key: The public key of its source.
            is_reset: Whether to accept another key, an older serial and another history than the mirror has.

        Raises:
            SignatureInvalid: If the file was cut off or altered, or signed with another key.
            SnapshotRejected: If it has expired, is older than the mirror, does not continue its history, or was
                written by another version of loradar; or if the registry has changes of its own.
        """
        with open_snapshot(path) as lines:
            info = check_snapshot(lines, key)
        require_current(info)
        with self._database.write_unlogged() as connection:
            require_own_schema(connection)
            connection.execute(select(tables.serial.c.value).with_for_update())
            known = _find_state(connection)
            before = serial_of(connection)
            if known is None:
                _require_no_own_changes(connection)
            elif not is_reset:
                _require_newer(info, key, known, before)
            followed = None if is_reset else known
            if info.since is not None and (followed is None or info.since > before):
                has = f"is at serial {before}" if followed else "does not follow its source yet"
                message = f"The snapshot has only the changes after serial {info.since}, and this mirror {has}."
                raise SnapshotRejected(f"{message} Load a whole one: loradar snapshot --out FILE.", since=info.since)
            if followed and (followed.digest, followed.issued) == (info.digest, info.issued):
                return LoadReport(info, before, before, is_new=False)
            head = _digest_at(connection, before) if followed else None
            _apply(connection, path, info, (before, head))
            _store_state(connection, info, key)
            return LoadReport(info, before, info.serial, is_new=True)


def _find_state(connection: Connection) -> MirrorState | None:
    columns = [_mirror.c[field.name] for field in fields(MirrorState)]
    row = connection.execute(select(*columns)).mappings().first()
    return MirrorState(**row) if row else None


def _digest_at(connection: Connection, serial: int) -> str | None:
    return connection.execute(select(_changes.digest).where(_changes.serial == serial)).scalar()


def _require_no_own_changes(connection: Connection) -> None:
    own = connection.execute(select(func.count()).where(_changes.action != "seed")).scalar_one()
    if own:
        way_out = "A mirror replaces everything: set LORADAR_DATABASE_URL to a new database for it."
        raise SnapshotRejected(f"This registry has {own} changes of its own, which would be lost. {way_out}", own=own)


def _require_newer(info: SnapshotInfo, key: str, known: MirrorState, serial: int) -> None:
    """Raise ``SnapshotRejected`` unless a snapshot is of the mirror's source, and not older than its state."""
    way_out = "Load a newer one; if the source itself was set back, give --reset."
    if key != known.key:
        message = f"This mirror follows the key {known.key}, not {key}. If the source has a new key, give --reset."
        raise SnapshotRejected(message, key=key, known=known.key)
    if info.serial < serial:
        message = f"The snapshot is of serial {info.serial}, and this mirror is at {serial} already. {way_out}"
        raise SnapshotRejected(message, serial=info.serial, known=serial)
    if info.serial == serial and info.issued < known.issued:
        message = f"The snapshot was issued at {info.issued}, and one of {known.issued} was loaded already. {way_out}"
        raise SnapshotRejected(message, issued=info.issued, known=known.issued)


def _apply(connection: Connection, path: Path, info: SnapshotInfo, known: tuple[int, str | None]) -> None:
    """Write the lines of a verified snapshot over what the mirror has: ``known`` is its serial and its head."""
    changes = CopiedChanges(connection, known)
    rows = CopiedRows(connection)
    if info.since is None:
        for table in EMPTIED:
            connection.execute(delete(table))
    else:
        rows.read_ids()
        changes.start_after(info.since, _digest_at(connection, info.since))
    number = 1
    try:
        for number, line in enumerate(_lines_before_signature(path, info.digest), start=1):
            document = json.loads(line)
            if "change" in document:
                changes.add(document["change"])
            elif number > 1:
                rows.add(document)
        rows.flush()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"line {number} is not as this version writes it ({type(error).__name__}: {error})"
        raise SnapshotRejected(f"{path} was written by another version of loradar: {reason}.", line=number) from error
    changes.finish(info.serial, info.head or FIRST)
    used = select(tables.mappings.c.source_id).union(select(tables.constants.c.source_id))
    connection.execute(delete(tables.sources).where(tables.sources.c.id.not_in(used)))


def _lines_before_signature(path: Path, digest: str) -> Iterator[bytes]:
    """Yield the lines of a snapshot without its signature.

    Raises:
        SignatureInvalid: At the end, if the file is not the one that was verified any more.
    """
    total, last = sha256(), b""
    with open_snapshot(path) as lines:
        for line in lines:
            if last:
                total.update(last)
                yield last
            last = line
    if f"sha256:{total.hexdigest()}" != digest:
        raise SignatureInvalid(f"{path} was changed while it was loaded. Load it again.", file=str(path))


def _store_state(connection: Connection, info: SnapshotInfo, key: str) -> None:
    connection.execute(update(tables.serial).values(value=info.serial))
    connection.execute(delete(_mirror))
    state = MirrorState(key=key, issued=info.issued, expires=info.expires, digest=info.digest, loaded_at=now())
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    connection.execute(insert(_mirror).values(id=1, **values))
