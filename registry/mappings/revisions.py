"""Mappings are append-only: a changed spec becomes the next revision of its source kind."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from ...domain.mappings import Mapping, Source
from ...domain.schema import to_json
from ...domain.vocabulary import SourceKind
from ..db import tables
from ..db.canonical import canonical
from ..db.transaction import Write
from ..results import StoreReport
from .entries import Entry
from .resolve import SELECT_MAPPINGS, question, to_mapping

Named = tuple[str, str]
"""Library and name of an architecture."""

_OF_KIND = SELECT_MAPPINGS + (
    "WHERE s.kind = :kind AND a.library = :library AND (CAST(:name AS VARCHAR(255)) IS NULL OR a.name = :name)"
)


def add_mappings(
    write: Write, source: Source, entries: Sequence[Entry], library_version: str | None = None
) -> StoreReport:
    """Insert a revision for every entry whose spec its source kind does not state already.

    Args:
        write: The transaction.
        source: Who states the entries.
        entries: Each with a question of its own.
        library_version: The version a scan saw them at: ranges are extended to it or split; ``None`` for any.
    """
    named = sorted({(entry.library, entry.name) for entry in entries})
    known = _known(write, source.kind, named)
    added: list[Mapping] = []
    unchanged: list[Mapping] = []
    extended: list[Mapping] = []
    for entry in entries:
        revisions = known[entry.question]
        mapping = entry.revise(source, revisions, library_version)
        ids = {prior.id for prior in revisions}
        (unchanged if mapping in revisions else extended if mapping.id in ids else added).append(mapping)
    _insert(write, source, added)
    _extend(write, extended)
    return StoreReport(tuple(added), tuple(unchanged), tuple(extended), write.outcome)


def _known(write: Write, kind: SourceKind, named: Sequence[Named]) -> dict[tuple[str, ...], list[Mapping]]:
    """Return the revisions of a source kind by question, yanked ones too: what was yanked must not come back."""
    name = named[0][1] if len(named) == 1 else None
    known: dict[tuple[str, ...], list[Mapping]] = defaultdict(list)
    for library in sorted({library for library, _ in named}):
        rows = write.reader.rows(_OF_KIND, kind=kind, library=library, name=name, library_version=None)
        for mapping in map(to_mapping, rows):
            known[question(mapping)].append(mapping)
    return known


def _extend(write: Write, extended: Sequence[Mapping]) -> None:
    """Move the ends of ranges: what a mapping says stays, the versions it was seen at grow."""
    table = tables.mappings
    statement = update(table).where(table.c.id == bindparam("of")).values(since=bindparam("a"), until=bindparam("b"))
    ranges = ((mapping.id, mapping.versions) for mapping in extended if mapping.versions)
    write.change(statement, [{"of": of, "a": versions.since, "b": versions.until} for of, versions in ranges])


def _insert(write: Write, source: Source, added: Sequence[Mapping]) -> None:
    if not added:
        return
    source_id = write.get_or_add(tables.sources, kind=source.kind, version=source.version)
    ids = architecture_ids(write, [(mapping.library, mapping.name) for mapping in added])
    shared = {"source_id": source_id, "created_at": datetime.now(UTC), "serial": write.serial}
    rows = [{**_row(mapping), **shared, "architecture_id": ids[mapping.library, mapping.name]} for mapping in added]
    write.change(insert(tables.mappings), rows)


def set_yanked(write: Write, mapping_id: str, reason: str | None, version: int) -> None:
    """Take a revision out of use for a reason, or without one into use again."""
    at = None if reason is None else datetime.now(UTC)
    table = tables.mappings
    values = {"yanked_at": at, "yank_reason": reason, "version": version}
    write.change(update(table).where(table.c.id == mapping_id).values(**values))


def _row(mapping: Mapping) -> dict[str, Any]:
    return {
        "id": mapping.id,
        "source_kind": mapping.source.kind,
        "peft_type": mapping.peft_type,
        "preset": mapping.preset,
        "revision": mapping.revision,
        "spec": canonical(to_json(mapping.spec)),
        "matched": mapping.matched,
        "per_rank": mapping.per_rank,
        "fixed": mapping.fixed,
        "coverage": canonical([to_json(coverage) for coverage in mapping.coverage]),
        "reasons": canonical(mapping.reasons),
        "since": mapping.versions and mapping.versions.since,
        "until": mapping.versions and mapping.versions.until,
    }


def architecture_ids(write: Write, named: Iterable[Named]) -> dict[Named, int]:
    """Return the row ids of architectures; those not known yet are inserted."""
    wanted = dict.fromkeys(named)
    found = _find_architecture_ids(write, wanted)
    missing = [{"library": library, "name": name} for library, name in wanted if (library, name) not in found]
    if missing:
        write.change(insert(tables.architectures), missing)
        found = _find_architecture_ids(write, wanted)
    return found


def _find_architecture_ids(write: Write, wanted: Iterable[Named]) -> dict[Named, int]:
    columns = tables.architectures.c
    libraries = {library for library, _ in wanted}
    rows = write.select(select(columns.id, columns.library, columns.name).where(columns.library.in_(libraries)))
    return {(row["library"], row["name"]): row["id"] for row in rows}
