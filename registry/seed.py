"""Load the packaged scans and PEFT's tables into a registry, in the place of those of an older loradar."""

import gc
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from packaging.version import Version
from sqlalchemy import bindparam, delete, insert, select, update

from ..catalog.entries import Catalog, CatalogEntry, OlderCatalog, read_all_older
from ..domain.mappings import Mapping, Source, Verification
from ..domain.versions import parse_version
from ..schema import to_json
from .catalogs import read_catalogs, seed_digest, seed_files
from .db import tables
from .db.database import Transaction
from .mappings.precedence import key_of, to_verification
from .peft_constants.reading import load_constants
from .records import entries_of_proposals
from .store import (
    add_constants,
    add_mappings,
    architecture_values,
    evidence_values,
    merge_verifications,
    rename_rows,
    verification_row,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection


def add_seed(connection: "Connection") -> None:
    """Load the packaged data into a migrated registry; users' own data is kept.

    Nothing is loaded over the seed of a newer loradar: two versions on one registry must not undo each other.
    """
    ours = metadata.version("loradar")
    with Transaction(connection, "seed", "loradar") as write:
        write.log(loradar=ours, digest=seed_digest())
        seeds = write.select(select(tables.seeds.c.loradar, tables.seeds.c.digest))
        if any(seed["digest"] == seed_digest() for seed in seeds):
            return
        if all(Version(ours) >= Version(seed["loradar"]) for seed in seeds):
            was_enabled = gc.isenabled()
            gc.disable()  # collecting takes a second over the many records of a seed, and frees none
            try:
                _load(write)
            finally:
                if was_enabled:
                    gc.enable()
        write.change(insert(tables.seeds).values(digest=seed_digest(), loradar=ours, serial=write.serial))


def _load(write: Transaction) -> None:
    """Store the packaged scans, then PEFT's tables with the verifications of their entries on those scans."""
    files, older_files = seed_files()
    catalogs = read_catalogs(files)
    older = read_all_older(older_files, catalogs)
    for catalog in catalogs:
        _put_scans(write, catalog, [one for one in older if one.catalog.header.library == catalog.header.library])
    constants, sources = load_constants(), tables.sources.c
    imported = write.select(select(sources.version).where(sources.kind == "peft"))
    if any(Version(row["version"]) > Version(constants.version) for row in imported):
        return  # a user imported the tables of a newer PEFT
    report = add_constants(write, constants)
    stated = (*report.added, *report.unchanged)
    for catalog in (*catalogs, *(one.catalog for one in older)):
        if catalog.header.peft == constants.version:
            _put_peft_checks(write, stated, catalog)


def _put_peft_checks(write: Transaction, stated: Iterable[Mapping], catalog: Catalog) -> None:
    """Store the verifications of PEFT's entries on the scanned architectures."""
    checks = {
        (entry.architecture.library, entry.architecture.name, peft_type): check
        for entry in catalog.entries
        for peft_type, check in entry.peft
    }
    keyed = ((mapping, checks.get((mapping.library, mapping.name, mapping.peft_type))) for mapping in stated)
    _put_checks(write, [(mapping, check) for mapping, check in keyed if check])


def _put_scans(write: Transaction, catalog: Catalog, older: Sequence[OlderCatalog]) -> None:
    """Store the scans of a catalog and of older versions of its library.

    An architecture gets the facts of its newest scan; one that a user scanned in a newer version is left unchanged.
    """
    stored = _stored_architectures(write, catalog.header.library)
    older_catalogs = (one.catalog for one in older)
    newest_first = sorted(older_catalogs, key=lambda one: parse_version(one.header.library_version), reverse=True)
    newest: dict[str, CatalogEntry] = {}
    for entry in (entry for one in (catalog, *newest_first) for entry in _scanned(one)):
        newest.setdefault(entry.architecture.name, entry)
    ids = _put_architectures(write, [entry for entry in newest.values() if not _is_older(entry, stored)], stored)
    replaced = {architecture_id for name, architecture_id in ids.items() if name in stored}
    current = {mapping_id for one in (catalog, *newest_first) for mapping_id in _put_mappings(write, one)}
    for one in older:
        _put_renames(write, one)
    if replaced:
        _yank_replaced(write, catalog.header.loradar, replaced, current)


def _scanned(catalog: Catalog) -> list[CatalogEntry]:
    return [entry for entry in catalog.entries if entry.unscanned is None]


def _stored_architectures(write: Transaction, library: str) -> dict[str, dict[str, Any]]:
    table = tables.architectures.c
    rows = write.select(select(table.id, table.name, table.library_version).where(table.library == library))
    return {row["name"]: row for row in rows}


def _is_older(entry: CatalogEntry, stored: dict[str, dict[str, Any]]) -> bool:
    """Return whether the stored scan of an architecture is of a newer version than the entry."""
    known, ours = stored.get(entry.architecture.name, {}).get("library_version"), entry.architecture.library_version
    return known is not None and ours is not None and parse_version(known) > parse_version(ours)


def _put_architectures(
    write: Transaction, entries: Sequence[CatalogEntry], stored: dict[str, dict[str, Any]]
) -> dict[str, int]:
    """Insert or update architectures and replace their slots; return their row ids by name."""
    if not entries:
        return {}
    table, slots = tables.architectures, tables.slots
    library = entries[0].architecture.library
    rows = {e.architecture.name: {"library": library, **architecture_values(e)} for e in entries}
    write.change(insert(table), [{"name": name, **row} for name, row in rows.items() if name not in stored])
    changed = [{"row_id": stored[name]["id"], **row} for name, row in rows.items() if name in stored]
    write.change(update(table).where(table.c.id == bindparam("row_id")), changed)
    replaced = [{"owner": row["row_id"]} for row in changed]
    write.change(delete(slots).where(slots.c.architecture_id == bindparam("owner")), replaced)
    known = _stored_architectures(write, library)
    ids: dict[str, int] = {name: known[name]["id"] for name in rows}
    owned = ((ids[e.architecture.name], position, slot) for e in entries for position, slot in enumerate(e.slots))
    write.change(insert(slots), [{**to_json(slot), "architecture_id": i, "position": n} for i, n, slot in owned])
    return ids


def _put_mappings(write: Transaction, catalog: Catalog) -> set[str]:
    """Store the proposals of a catalog with their verifications, and return the ids of the mappings they are."""
    entries, version = _scanned(catalog), catalog.header.library_version
    proposed = [p for entry in entries for p in entries_of_proposals(entry.architecture, entry.proposals)]
    report = add_mappings(write, Source("scanner", catalog.header.loradar), proposed, version)
    known = {key_of(mapping): mapping for mapping in (*report.unchanged, *report.extended)}
    current = known | {key_of(mapping): mapping for mapping in report.added}
    # The newest scan's evidence on a spec makes no new revision.
    newest = {key: m.id for key, m in known.items() if m.versions and m.versions.until == version}
    evidence = [{"row_id": newest[p.key], **evidence_values(p)} for p in proposed if p.key in newest]
    write.change(update(tables.mappings).where(tables.mappings.c.id == bindparam("row_id")), evidence)
    checks = (check for entry in entries for check in entry.checks)
    _put_checks(write, [(current[entry.key], check) for entry, check in zip(proposed, checks, strict=True)])
    return {mapping.id for mapping in current.values()}


def _put_renames(write: Transaction, older: OlderCatalog) -> None:
    """Replace the stored renames between an older version and the catalog's."""
    table = tables.renames
    ids = {name: row["id"] for name, row in _stored_architectures(write, older.catalog.header.library).items()}
    ends = {"older": older.catalog.header.library_version, "newer": older.base}
    is_between = (table.c.from_version == bindparam("older")) & (table.c.to_version == bindparam("newer"))
    owners = [{"owner": ids[entry.architecture.name], **ends} for entry in _scanned(older.catalog)]
    write.change(delete(table).where((table.c.architecture_id == bindparam("owner")) & is_between), owners)
    rows = (row for name, renames in older.renames.items() for row in rename_rows(ids[name], renames))
    write.change(insert(table), [*rows])


def _yank_replaced(write: Transaction, loradar: str, replaced: set[int], current: set[str]) -> None:
    """Yank the proposals of an older scanner for a method and preset that this one proposes nothing for."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["architecture_id"], row["peft_type"], row["preset"]

    table = tables.mappings
    is_ours = (table.c.source_kind == "scanner") & table.c.yanked_at.is_(None)
    columns = (table.c.id, table.c.architecture_id, table.c.peft_type, table.c.preset)
    ours = [row for row in write.select(select(*columns).where(is_ours)) if row["architecture_id"] in replaced]
    proposed = {key(row) for row in ours if row["id"] in current}
    yanked = [{"row_id": row["id"]} for row in ours if key(row) not in proposed]
    reason = {"yanked_at": datetime.now(UTC), "yank_reason": f"loradar {loradar} does not propose it any more"}
    write.change(update(table).where(table.c.id == bindparam("row_id")).values(**reason), yanked)


def _put_checks(write: Transaction, checked: Sequence[tuple[Mapping, Verification]]) -> None:
    """Store verifications, all of the same library version, where they differ from those stored."""
    if not checked:
        return
    table = tables.verifications
    names = ("mapping_id", "status", "library_version", "counts", "reached", "findings")
    of_version = table.c.library_version == checked[0][1].library_version
    rows = write.select(select(*(table.c[name] for name in names)).where(of_version))
    stored = {row["mapping_id"]: to_verification(row) for row in rows}
    new, changed = [], []
    for mapping, check in checked:
        prior = stored.get(mapping.id)
        merged = merge_verifications(prior, check)
        row = {**verification_row(write, merged), "mapping_id": mapping.id}
        if prior is None:
            new.append(row)
        elif merged != prior:
            changed.append({**row, "at_mapping": mapping.id, "at_version": check.library_version})
    is_same = (table.c.mapping_id == bindparam("at_mapping")) & (table.c.library_version == bindparam("at_version"))
    write.change(insert(table), new)
    write.change(update(table).where(is_same), changed)
