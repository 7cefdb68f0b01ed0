"""The scans of a seed: a whole catalog in a few statements, in the place of what an older one brought."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from packaging.version import Version
from sqlalchemy import bindparam, delete, insert, select, update

from ..catalog import Catalog, CatalogEntry
from ..mappings import Mapping, Source
from . import tables
from .canonical import Question, canonical
from .entries import Entry, entries_of_proposals
from .resolve import question
from .revisions import add_mappings
from .seed_checks import put_checks
from .write import Write


def put_scans(write: Write, catalog: Catalog) -> None:
    """Store what a catalog's scans found; what was not scanned is no entry of the registry.

    An architecture that somebody scanned in a newer version of its library is left as it is.
    """
    known = _known(write, catalog.header.library)
    entries = [entry for entry in catalog.entries if entry.unscanned is None and _is_due(entry, known)]
    ids = _put_architectures(write, entries, known)
    stale = {owner for name, owner in ids.items() if name in known}
    _put_slots(write, entries, ids, stale)
    _put_mappings(write, catalog.header.loradar, entries, stale)


def _known(write: Write, library: str) -> dict[str, dict[str, Any]]:
    table = tables.architectures.c
    rows = write.select(select(table.id, table.name, table.library_version).where(table.library == library))
    return {row["name"]: row for row in rows}


def _is_due(entry: CatalogEntry, known: dict[str, dict[str, Any]]) -> bool:
    seen, ours = known.get(entry.architecture.name, {}).get("library_version"), entry.architecture.library_version
    return seen is None or ours is None or Version(seen) <= Version(ours)


def _put_architectures(
    write: Write, entries: Sequence[CatalogEntry], known: dict[str, dict[str, Any]]
) -> dict[str, int]:
    """Insert or update the architectures, and return their row ids by name."""
    table = tables.architectures
    rows = {entry.architecture.name: _architecture_row(entry) for entry in entries}
    write.change(insert(table), [row for name, row in rows.items() if name not in known])
    stale = [{**row, "at": known[name]["id"]} for name, row in rows.items() if name in known]
    write.change(update(table).where(table.c.id == bindparam("at")), stale)
    found = _known(write, entries[0].architecture.library) if entries else {}
    return {name: found[name]["id"] for name in rows}


def _architecture_row(entry: CatalogEntry) -> dict[str, Any]:
    seen = entry.architecture
    return {
        "library": seen.library,
        "name": seen.name,
        "class_name": seen.class_name,
        "library_version": seen.library_version,
        "fingerprint": seen.fingerprint,
        "structure": seen.structure,
        "method": entry.method,
        "proof": entry.proof,
        "prompt_facts": canonical(entry.prompt_facts.to_dict()),
        "towers": canonical(entry.towers),
    }


def _put_slots(write: Write, entries: Sequence[CatalogEntry], ids: dict[str, int], stale: set[int]) -> None:
    table = tables.slots
    is_stale = table.c.architecture_id == bindparam("owner")
    write.change(delete(table).where(is_stale), [{"owner": owner} for owner in stale])
    write.change(insert(table), [*_slot_rows(entries, ids)])


def _slot_rows(entries: Iterable[CatalogEntry], ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        owner = ids[entry.architecture.name]
        for position, slot in enumerate(entry.slots):
            yield {**slot.to_dict(), "architecture_id": owner, "position": position}


def _put_mappings(write: Write, loradar: str, entries: Sequence[CatalogEntry], stale: set[int]) -> None:
    proposed = [p for entry in entries for p in entries_of_proposals(entry.architecture, entry.proposals)]
    report = add_mappings(write, Source("scanner", loradar), proposed)
    current = {question(mapping): mapping for mapping in (*report.added, *report.unchanged)}
    _refresh(write, proposed, {question(mapping): mapping for mapping in report.unchanged})
    if stale:
        _yank_the_rest(write, loradar, stale, {mapping.id for mapping in current.values()})
    checks = (check for entry in entries for check in entry.checks)
    put_checks(write, [(current[entry.question], check) for entry, check in zip(proposed, checks, strict=True)])


def _refresh(write: Write, proposed: Iterable[Entry], unchanged: dict[Question, Mapping]) -> None:
    """Bring sizes and reasons up to date: they are evidence for a revision and no part of it."""
    table = tables.mappings
    rows = [
        {
            "at": unchanged[entry.question].id,
            "matched": entry.matched,
            "per_rank": entry.per_rank,
            "fixed": entry.fixed,
            "reasons": canonical(entry.reasons),
        }
        for entry in proposed
        if entry.question in unchanged
    ]
    write.change(update(table).where(table.c.id == bindparam("at")), rows)


def _yank_the_rest(write: Write, loradar: str, stale: set[int], current: set[str]) -> None:
    """Take back what an older scanner proposed, where this one proposes nothing for the same question."""
    table = tables.mappings
    is_ours = (table.c.source_kind == "scanner") & table.c.yanked_at.is_(None)
    columns = (table.c.id, table.c.architecture_id, table.c.peft_type, table.c.preset)
    mine = [row for row in write.select(select(*columns).where(is_ours)) if row["architecture_id"] in stale]
    answered = {_asked(row) for row in mine if row["id"] in current}
    gone = [{"at": row["id"]} for row in mine if _asked(row) not in answered]
    reason = {"yanked_at": datetime.now(UTC), "yank_reason": f"loradar {loradar} does not propose it any more"}
    write.change(update(table).where(table.c.id == bindparam("at")).values(**reason), gone)


def _asked(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["architecture_id"], row["peft_type"], row["preset"]
