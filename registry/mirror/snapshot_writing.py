"""Write the registry as a snapshot: a header line, the changes, then a line for each architecture with all its data."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from sqlalchemy import CompoundSelect, Connection, RowMapping, Select, select, union

from ...schema import to_json
from ...snapshots import FORMAT, canonical_line
from ..db import tables
from ..db.audit_log import mapping_subject, serial_of
from ..db.encoding import to_time
from ..mappings.history import list_changes
from ..mappings.listing import to_architecture
from ..mappings.precedence import to_facts
from ..mappings.stored_names import RENAME_COLUMNS, SLOT_COLUMNS

PAGE = 100
"""Architectures read and kept in memory at once."""

_architectures, _mappings, _changes = tables.architectures.c, tables.mappings.c, tables.changes.c
_verifications, _subjects = tables.verifications.c, tables.change_subjects.c
_CHECK_COLUMNS = tuple(
    _verifications[name]
    for name in ("mapping_id", "library_version", "status", "counts", "reached", "findings", "serial")
)

Row = dict[str, Any]


def snapshot_lines(connection: Connection, since: int | None = None) -> Iterator[str]:
    """Yield the lines of a snapshot without its signature, each with its line end.

    The same registry gives the same bytes.

    Args:
        connection: In a transaction that sees one state of the database (``Database.read``).
        since: Only the changes after this serial, and the architectures touched by them, each complete; ``None`` for
            all.
    """
    serial = serial_of(connection)
    if since is not None and not can_tell_since(connection, since):
        since = None
    yield canonical_line(
        {
            "format": FORMAT,
            "loradar": metadata.version("loradar"),
            "serial": serial,
            "head": connection.execute(select(_changes.digest).where(_changes.serial == serial)).scalar(),
            "since": since,
        }
    )
    last = since or 0
    while changes := list_changes(connection, last, PAGE):
        yield from (canonical_line({"change": to_json(change)}) for change in changes)
        last = changes[-1].serial
    query = select(tables.architectures).order_by(_architectures.id).limit(PAGE)
    if since is not None:
        query = query.where(_architectures.id.in_(_touched(since)))
    last = 0
    while page := connection.execute(query.where(_architectures.id > last)).mappings().all():
        yield from map(canonical_line, _to_documents(connection, page))
        last = page[-1]["id"]


def can_tell_since(connection: Connection, since: int) -> bool:
    """Return whether the changes after a serial record their subjects; ``False`` for a serial not yet reached."""
    unnamed = select(_changes.serial).where(_changes.serial > since, _changes.action.in_(("seed", "log.start")))
    return since <= serial_of(connection) and connection.execute(unnamed.limit(1)).first() is None


def _touched(since: int) -> CompoundSelect[int]:
    """Return the query for the ids of the architectures that changes after a serial wrote, or name as subjects."""
    is_of_mapping = _subjects.subject == mapping_subject("") + _mappings.id
    is_of_architecture = _subjects.subject == "architecture:" + _architectures.library + ":" + _architectures.name
    named = select(_architectures.id).join_from(tables.architectures, tables.change_subjects, is_of_architecture)
    return union(
        select(_mappings.architecture_id).where(_mappings.serial > since),
        select(_mappings.architecture_id)
        .join_from(tables.verifications, tables.mappings)
        .where(_verifications.serial > since),
        select(_mappings.architecture_id)
        .join_from(tables.change_subjects, tables.mappings, is_of_mapping)
        .where(_subjects.serial > since),
        named.where(_subjects.serial > since),
    )


def _to_documents(connection: Connection, page: Sequence[RowMapping]) -> Iterator[Row]:
    """Yield the document of each architecture of a page with all its parts."""
    is_of_page = _mappings.architecture_id.between(page[0]["id"], page[-1]["id"])
    slot, rename, source = tables.slots.c, tables.renames.c, tables.sources.c
    slots = _group(
        connection,
        select(slot.architecture_id, *SLOT_COLUMNS)
        .where(slot.architecture_id.between(page[0]["id"], page[-1]["id"]))
        .order_by(slot.architecture_id, slot.position),
    )
    renames = _group(
        connection,
        select(rename.architecture_id, *RENAME_COLUMNS)
        .where(rename.architecture_id.between(page[0]["id"], page[-1]["id"]))
        .order_by(rename.architecture_id, rename.id),
    )
    revisions = _group(
        connection,
        select(tables.mappings, source.kind, source.version.label("source_version"))
        .join_from(tables.mappings, tables.sources)
        .where(is_of_page)
        .order_by(_mappings.architecture_id, _mappings.peft_type, _mappings.preset, source.kind, _mappings.revision),
    )
    check_query = select(*_CHECK_COLUMNS).join_from(tables.verifications, tables.mappings).where(is_of_page)
    checks = _group(connection, check_query.order_by(_verifications.mapping_id, _verifications.id), "mapping_id")
    for row in page:
        facts, parts = to_facts(row["prompt_facts"])
        yield {
            "architecture": to_json(to_architecture(row)),
            "method": row["method"],
            "proof": row["proof"],
            "prompt_facts": facts and to_json(facts),
            "parts": [to_json(part) for part in parts],
            "towers": json.loads(row["towers"]),
            "slots": slots[row["id"]],
            "renames": renames[row["id"]],
            "revisions": [_to_revision(revision, checks[revision["id"]]) for revision in revisions[row["id"]]],
        }


def _group(connection: Connection, query: Select[Any], column: str = "architecture_id") -> dict[Any, list[Row]]:
    """Return the rows of a query by the value of a column, without that column."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        values = dict(row)
        groups[values.pop(column)].append(values)
    return groups


def _to_revision(row: Row, checks: list[Row]) -> Row:
    texts = {name: json.loads(row[name]) for name in ("spec", "coverage", "reasons")}
    times = {name: to_time(row[name]) for name in ("created_at", "yanked_at")}
    kept = {name: row[name] for name in ("id", "peft_type", "preset", "revision", "yank_reason", "version", "serial")}
    formula = None if row["per_rank"] is None else {"per_rank": row["per_rank"], "fixed": row["fixed"]}
    return {
        **kept,
        **texts,
        **times,
        "source": {"kind": row["kind"], "version": row["source_version"]},
        "matched": row["matched"],
        "formula": formula,
        "versions": {"since": row["since"], "until": row["until"]} if row["since"] else None,
        "verifications": [
            check | {name: json.loads(check[name]) for name in ("counts", "findings")} for check in checks
        ],
    }
