"""Read the changes of the registry: the feed for mirrors, and every revision of an architecture with its changes."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping as Row
from typing import Any

from sqlalchemy import Connection, literal, select, union

from ...domain.changes import Change, Revision
from ...errors import UnknownMapping
from ...schema import canonical
from ..db import tables
from ..db.audit_log import WITHHELD, is_withheld, mapping_subject
from ..db.encoding import to_time
from .listing import get_architecture
from .precedence import to_mapping
from .resolve import IS_OF_ARCHITECTURE, MAPPINGS

_mappings, _changes = tables.mappings.c, tables.changes.c

LEAST_DIGITS = 8
"""Digits of a mapping's id that may stand for it."""

_DIGITS = re.compile(rf"(?:sha256:)?([0-9a-f]{{{LEAST_DIGITS},64}})", re.IGNORECASE)


def list_changes(connection: Connection, since: int, limit: int) -> tuple[Change, ...]:
    """Return up to ``limit`` changes after a serial, oldest first, without the details of tokens."""
    query = select(tables.changes).where(_changes.serial > since).order_by(_changes.serial).limit(limit)
    return tuple(
        _to_change({**row, "details": canonical(WITHHELD)} if is_withheld(row["action"]) else row)
        for row in connection.execute(query).mappings()
    )


def _to_change(row: Row[Any, Any]) -> Change:
    values = {name: row[name] for name in ("serial", "at", "actor", "action", "previous", "digest")}
    return Change(details=json.loads(row["details"]), **values)


_HISTORY = MAPPINGS.add_columns(
    _mappings.created_at,
    _mappings.yanked_at,
    _mappings.yank_reason,
    _mappings.version.label("row_version"),
).order_by(_mappings.peft_type, _mappings.preset, tables.sources.c.kind, _mappings.revision)

_of_architecture = (
    select(_mappings.id.label("mapping_id"), tables.changes)
    .join_from(tables.mappings, tables.architectures)
    .where(IS_OF_ARCHITECTURE)
)
_subject = tables.change_subjects.c
_CHANGES = union(
    # A write of very many revisions, such as a seed, does not name them as subjects.
    _of_architecture.join(tables.changes, _changes.serial == _mappings.serial),
    _of_architecture.join(tables.change_subjects, _subject.subject == literal(mapping_subject("")) + _mappings.id).join(
        tables.changes, _changes.serial == _subject.serial
    ),
)
"""Changes of the revisions of an architecture: the one that added each, and those that name it."""


def list_history(connection: Connection, library: str, name: str) -> tuple[Revision, ...]:
    """Return every revision of an architecture, yanked ones included, by key and source, oldest first."""
    values = {"library": library, "name": name}
    query = _HISTORY.where(IS_OF_ARCHITECTURE)
    rows = connection.execute(query, {**values, "library_version": None}).mappings().all()
    if not rows:
        get_architecture(connection, library, name)  # which raises if there is none
    changes: dict[str, list[Change]] = defaultdict(list)
    for row in connection.execute(_CHANGES, values).mappings():
        changes[row["mapping_id"]].append(_to_change(row))
    return tuple(
        Revision(
            mapping=to_mapping(row),
            created_at=to_time(row["created_at"]) or "",
            yanked_at=to_time(row["yanked_at"]),
            yank_reason=row["yank_reason"],
            version=row["row_version"],
            changes=tuple(sorted(changes[row["id"]], key=lambda change: change.serial)),
        )
        for row in rows
    )


def get_revision(connection: Connection, mapping_id: str) -> Revision:
    """Return one revision by its id, or by the first digits of it."""
    mapping_id = whole_id(connection, mapping_id)
    table = tables.architectures.c
    query = select(table.library, table.name).join_from(tables.mappings, tables.architectures)
    library, name = connection.execute(query.where(_mappings.id == mapping_id)).one()
    history = list_history(connection, library, name)
    return next(revision for revision in history if revision.mapping.id == mapping_id)


def whole_id(connection: Connection, prefix: str) -> str:
    """Return the id of a mapping by its first digits, with ``sha256:`` or without.

    Raises:
        UnknownMapping: If no mapping has it, or more than one.
    """
    way_out = f"Give its id, or the first {LEAST_DIGITS} digits or more, as the history of its architecture lists it."
    digits = _DIGITS.fullmatch(prefix)
    if digits:
        first = f"sha256:{digits[1].lower()}"
        query = select(_mappings.id).where(_mappings.id >= first, _mappings.id < f"{first}g")
        found: list[str] = [*connection.execute(query.order_by(_mappings.id).limit(5)).scalars()]
        if len(found) == 1:
            return found[0]
        if found:
            way_out = f"Ids that start so: {', '.join(found)}. Give more digits."
    raise UnknownMapping(prefix, (), way_out)
