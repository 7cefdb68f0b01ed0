"""The facts a registry starts with, and is brought up to by a newer loradar: scans of libraries and PEFT's tables."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from packaging.version import Version
from sqlalchemy import bindparam, delete, insert, select, update

from ...catalog.entries import Catalog, CatalogEntry, read_catalog
from ...catalog.older_versions import OlderCatalog, read_older
from ...domain.mappings import Mapping, Source, Verification
from ...domain.schema import to_json
from ...domain.versions import parse_version
from ..db import tables
from ..db.canonical import Question, canonical
from ..db.transaction import Write
from ..mappings.entries import Entry, entries_of_proposals
from ..mappings.resolve import question, to_verification
from ..mappings.revisions import add_mappings
from ..peft_constants.reading import PeftConstants, load_constants
from ..store import add_constants, rename_rows, settle, verification_row
from .seed_files import seed_catalogs, seed_digest, seed_older

if TYPE_CHECKING:
    from sqlalchemy import Connection


def add_seed(connection: "Connection") -> None:
    """Bring a migrated registry up to what this loradar brings along; what users stored is kept.

    If a newer loradar seeded it already, nothing is loaded: two versions on one registry must not undo each other.
    """
    ours = metadata.version("loradar")
    with Write(connection, "loradar", "seed") as write:
        write.tell(loradar=ours, digest=seed_digest())
        seeds = write.select(select(tables.seeds.c.loradar, tables.seeds.c.digest))
        if any(seed["digest"] == seed_digest() for seed in seeds):
            return
        if all(Version(ours) >= Version(seed["loradar"]) for seed in seeds):
            with _uncollected():
                _load(write)
        write.change(insert(tables.seeds).values(digest=seed_digest(), loradar=ours, serial=write.serial))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the search for reference cycles: over as many records as a seed has it takes a second, and finds none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load(write: Write) -> None:
    constants = load_constants()
    catalogs = [read_catalog(file) for file in seed_catalogs()]
    older = [found for file in seed_older() if (found := read_older(file, catalogs))]
    for catalog in catalogs:
        put_scans(write, catalog, [one for one in older if one.catalog.header.library == catalog.header.library])
    if not _knows_newer_peft(write, constants):
        report = add_constants(write, constants)
        for catalog in (*catalogs, *(one.catalog for one in older)):
            if catalog.header.peft == constants.version:
                _put_peft_checks(write, (*report.added, *report.unchanged), catalog)


def _knows_newer_peft(write: Write, constants: PeftConstants) -> bool:
    """Tell whether somebody imported the tables of a newer PEFT: ours would be a step back."""
    table = tables.sources.c
    known = write.select(select(table.version).where(table.kind == "peft"))
    return any(Version(row["version"]) > Version(constants.version) for row in known)


def _put_peft_checks(write: Write, stated: Iterable[Mapping], catalog: Catalog) -> None:
    """Store how PEFT's entries fared on the architectures scanned."""
    outcomes = {
        (entry.architecture.library, entry.architecture.name, peft_type): check
        for entry in catalog.entries
        for peft_type, check in entry.peft
    }
    keyed = ((mapping, outcomes.get((mapping.library, mapping.name, mapping.peft_type))) for mapping in stated)
    put_checks(write, [(mapping, check) for mapping, check in keyed if check])


def put_scans(write: Write, catalog: Catalog, older: Sequence[OlderCatalog] = ()) -> None:
    """Store what scans found, a catalog's and those of older versions; what was not scanned is no entry.

    An architecture is what its newest scan says; one that somebody scanned in a newer version is left as it is.

    Args:
        write: The transaction.
        catalog: Of a library.
        older: Of the same library.
    """
    known = _known(write, catalog.header.library)
    catalogs = [catalog, *sorted((one.catalog for one in older), key=_age, reverse=True)]
    told: dict[str, CatalogEntry] = {}
    for entry in (entry for one in catalogs for entry in _scanned(one)):
        told.setdefault(entry.architecture.name, entry)
    entries = [entry for entry in told.values() if _is_due(entry, known)]
    ids = _put_architectures(write, entries, known)
    stale = {owner for name, owner in ids.items() if name in known}
    _put_slots(write, entries, ids, stale)
    current = {mapping for one in catalogs for mapping in _put_mappings(write, one)}
    for one in older:
        _put_renames(write, one)
    if stale:
        _yank_the_rest(write, catalog.header.loradar, stale, current)


def _age(catalog: Catalog) -> Version:
    return parse_version(catalog.header.library_version)


def _scanned(catalog: Catalog) -> list[CatalogEntry]:
    return [entry for entry in catalog.entries if entry.unscanned is None]


def _known(write: Write, library: str) -> dict[str, dict[str, Any]]:
    table = tables.architectures.c
    rows = write.select(select(table.id, table.name, table.library_version).where(table.library == library))
    return {row["name"]: row for row in rows}


def _is_due(entry: CatalogEntry, known: dict[str, dict[str, Any]]) -> bool:
    seen, ours = known.get(entry.architecture.name, {}).get("library_version"), entry.architecture.library_version
    return seen is None or ours is None or parse_version(seen) <= parse_version(ours)


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
        "prompt_facts": canonical(to_json(entry.prompt_facts)),
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
            yield {**to_json(slot), "architecture_id": owner, "position": position}


def _put_mappings(write: Write, catalog: Catalog) -> set[str]:
    """Store what a catalog proposes, with how it was checked, and return the ids of the mappings that say so."""
    entries, version = _scanned(catalog), catalog.header.library_version
    proposed = [p for entry in entries for p in entries_of_proposals(entry.architecture, entry.proposals)]
    report = add_mappings(write, Source("scanner", catalog.header.loradar), proposed, version)
    known = {question(mapping): mapping for mapping in (*report.unchanged, *report.extended)}
    current = known | {question(mapping): mapping for mapping in report.added}
    _refresh(write, proposed, {asked: m for asked, m in known.items() if m.versions and m.versions.until == version})
    checks = (check for entry in entries for check in entry.checks)
    put_checks(write, [(current[entry.question], check) for entry, check in zip(proposed, checks, strict=True)])
    return {mapping.id for mapping in current.values()}


def _refresh(write: Write, proposed: Iterable[Entry], known: dict[Question, Mapping]) -> None:
    """Bring sizes and reasons up to date: they are evidence for a revision, from the newest scan, and no part of it."""
    table = tables.mappings
    rows = [
        {
            "at": known[entry.question].id,
            "matched": entry.matched,
            "per_rank": entry.formula.per_rank if entry.formula else None,
            "fixed": entry.formula.fixed if entry.formula else None,
            "coverage": canonical([to_json(coverage) for coverage in entry.coverage]),
            "reasons": canonical(entry.reasons),
        }
        for entry in proposed
        if entry.question in known
    ]
    write.change(update(table).where(table.c.id == bindparam("at")), rows)


def _put_renames(write: Write, older: OlderCatalog) -> None:
    """Put the way to the newer catalog in the place of what is known of it."""
    table = tables.renames
    ids = {name: row["id"] for name, row in _known(write, older.catalog.header.library).items()}
    ends = {"older": older.catalog.header.library_version, "newer": older.base}
    is_way = (table.c.from_version == bindparam("older")) & (table.c.to_version == bindparam("newer"))
    owners = [{"owner": ids[entry.architecture.name], **ends} for entry in _scanned(older.catalog)]
    write.change(delete(table).where((table.c.architecture_id == bindparam("owner")) & is_way), owners)
    rows = (row for name, renames in older.renames.items() for row in rename_rows(ids[name], renames))
    write.change(insert(table), [*rows])


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


def put_checks(write: Write, checked: Sequence[tuple[Mapping, Verification]]) -> None:
    """Store how mappings fared, all at the same library version, unless that is what is on record."""
    if not checked:
        return
    known = _known_checks(write, checked[0][1].library_version)
    new, changed = [], []
    for mapping, check in checked:
        prior = known.get(mapping.id)
        row = {**verification_row(write, settle(prior, check)), "mapping_id": mapping.id}
        if prior is None:
            new.append(row)
        elif settle(prior, check) != prior:
            changed.append({**row, "at_mapping": mapping.id, "at_version": check.library_version})
    table = tables.verifications
    is_it = (table.c.mapping_id == bindparam("at_mapping")) & (table.c.library_version == bindparam("at_version"))
    write.change(insert(table), new)
    write.change(update(table).where(is_it), changed)


def _known_checks(write: Write, library_version: str) -> dict[str, Verification]:
    """Return every verification for a library version by the id of its mapping."""
    table = tables.verifications.c
    columns = (table.mapping_id, table.status, table.library_version, table.counts, table.reached, table.findings)
    rows = write.select(select(*columns).where(table.library_version == library_version))
    return {row["mapping_id"]: to_verification(row) for row in rows}
