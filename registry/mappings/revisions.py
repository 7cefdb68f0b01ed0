"""Append mappings: a changed spec becomes the next revision of its source kind."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from ...domain.mappings import Mapping, Source
from ...schema import to_json
from ..db import tables
from ..db.database import Transaction
from ..db.encoding import MappingKey, canonical
from ..results import StoreReport
from .entries import Entry
from .precedence import key_of
from .resolve import MAPPINGS, read_mappings

Name = tuple[str, str]
"""Library and name of an architecture."""


def add_mappings(
    write: Transaction, source: Source, entries: Sequence[Entry], library_version: str | None = None
) -> StoreReport:
    """Insert a revision for every entry whose spec is not yet on record for its source kind.

    Args:
        write: The transaction.
        source: Source of the entries.
        entries: Entries with distinct keys.
        library_version: Version of the scan that gave them: ranges are extended to it or split; ``None`` for any.
    """
    names = sorted({(entry.library, entry.name) for entry in entries})
    # Yanked revisions too: they must not come back.
    query = MAPPINGS.where(tables.sources.c.kind == source.kind)
    if len(names) == 1:
        query = query.where(tables.architectures.c.name == names[0][1])
    known: dict[MappingKey, list[Mapping]] = defaultdict(list)
    for library in sorted({library for library, _ in names}):
        of_library = query.where(tables.architectures.c.library == library)
        for mapping in read_mappings(write.connection, of_library, {}):
            known[key_of(mapping)].append(mapping)
    added: list[Mapping] = []
    unchanged: list[Mapping] = []
    extended: list[Mapping] = []
    for entry in entries:
        revisions = known[entry.key]
        mapping = entry.revise(source, revisions, library_version)
        ids = {prior.id for prior in revisions}
        (unchanged if mapping in revisions else extended if mapping.id in ids else added).append(mapping)
    _insert(write, source, added)
    table = tables.mappings
    statement = update(table).where(table.c.id == bindparam("of")).values(since=bindparam("a"), until=bindparam("b"))
    ranges = ((mapping.id, mapping.versions) for mapping in extended if mapping.versions)
    write.change(statement, [{"of": of, "a": versions.since, "b": versions.until} for of, versions in ranges])
    return StoreReport(tuple(added), tuple(unchanged), tuple(extended), write.final_serial)


def _insert(write: Transaction, source: Source, added: Sequence[Mapping]) -> None:
    if not added:
        return
    ids = architecture_ids(write, [(mapping.library, mapping.name) for mapping in added])
    shared = {"source_id": source_id(write, source), "created_at": datetime.now(UTC), "serial": write.serial}
    rows = [
        {
            **shared,
            "id": mapping.id,
            "architecture_id": ids[mapping.library, mapping.name],
            "source_kind": mapping.source.kind,
            "peft_type": mapping.peft_type,
            "preset": mapping.preset,
            "revision": mapping.revision,
            "spec": canonical(mapping.spec.values),
            **evidence_values(mapping),
            "since": mapping.versions and mapping.versions.since,
            "until": mapping.versions and mapping.versions.until,
        }
        for mapping in added
    ]
    write.change(insert(tables.mappings), rows)


def evidence_values(scanned: Mapping | Entry) -> dict[str, Any]:
    """Return the columns of a mapping that hold evidence from a scan: its size, its coverage and its reasons."""
    return {
        "matched": scanned.matched,
        "per_rank": scanned.formula.per_rank if scanned.formula else None,
        "fixed": scanned.formula.fixed if scanned.formula else None,
        "coverage": canonical([to_json(coverage) for coverage in scanned.coverage]),
        "reasons": canonical(scanned.reasons),
    }


def source_id(write: Transaction, source: Source) -> int:
    """Return the row id of a source; it is inserted if it is new."""
    table = tables.sources.c
    query = select(table.id).where(table.kind == source.kind, table.version == source.version)
    known: int | None = write.connection.execute(query).scalar()
    return write.insert(tables.sources, kind=source.kind, version=source.version) if known is None else known


def architecture_ids(write: Transaction, names: Iterable[Name]) -> dict[Name, int]:
    """Return the row ids of architectures; new ones are inserted."""
    names = dict.fromkeys(names)
    table = tables.architectures.c
    libraries = {library for library, _ in names}
    query = select(table.library, table.name, table.id).where(table.library.in_(libraries))

    def find() -> dict[Name, int]:
        return {(library, name): number for library, name, number in write.connection.execute(query)}

    known = find()
    missing = [{"library": library, "name": name} for library, name in names if (library, name) not in known]
    if missing:
        write.change(insert(tables.architectures), missing)
        known = find()
    return known


def set_yanked(write: Transaction, mapping_id: str, reason: str | None, version: int) -> None:
    """Yank a revision for a reason, or restore it with ``None``."""
    table = tables.mappings
    values = {"yanked_at": None if reason is None else datetime.now(UTC), "yank_reason": reason, "version": version}
    write.change(update(table).where(table.c.id == mapping_id).values(**values))
