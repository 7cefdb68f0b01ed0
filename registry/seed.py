"""The facts a new registry starts with: the catalog's scans and PEFT's tables, from the copies in ``data``."""

from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from ..catalog import Catalog, CatalogEntry, list_catalogs, read_catalog
from ..mappings import Mapping, Source, Verification
from ..older import OlderCatalog, list_older, read_older
from . import tables
from .canonical import canonical
from .constants_json import load_constants
from .entries import entries_of_proposals
from .resolve import question
from .revisions import Named, add_mappings, architecture_ids
from .store import add_constants, rename_rows
from .write import Write

if TYPE_CHECKING:
    from sqlalchemy import Connection


def add_seed(connection: "Connection") -> None:
    """Fill a migrated, empty registry."""
    constants = load_constants()
    with Write(connection) as write:
        catalogs = [read_catalog(file) for file in list_catalogs()]
        for catalog in catalogs:
            _add_catalog(write, catalog, catalog.entries)
        found = (read_older(file, catalogs) for file in list_older())
        older = [one for one in found if one]
        known = {_named(entry) for catalog in catalogs for entry in catalog.entries}
        for one in older:
            _add_older(write, one, known)
        stated = add_constants(write, constants).added
        checked = [*catalogs, *(one.catalog for one in older)]
        for catalog in checked:
            if catalog.header.peft == constants.version:
                _add_peft_checks(write, stated, catalog)


def _add_catalog(write: Write, catalog: Catalog, entries: Iterable[CatalogEntry]) -> None:
    """Store what a catalog's scans found, in a few statements; what was not scanned is no entry of the registry."""
    scanned = [entry for entry in entries if entry.unscanned is None]
    write.change(insert(tables.architectures), [_architecture_row(entry) for entry in scanned])
    ids = architecture_ids(write, map(_named, scanned))
    write.change(insert(tables.slots), [*_slot_rows(scanned, ids)])
    _add_proposals(write, catalog, scanned)


def _add_proposals(write: Write, catalog: Catalog, scanned: list[CatalogEntry]) -> None:
    """Store what was proposed and how each proposal was checked."""
    source = Source("scanner", catalog.header.loradar)
    proposed = [p for entry in scanned for p in entries_of_proposals(entry.architecture, entry.proposals)]
    report = add_mappings(write, source, proposed, catalog.header.library_version)
    kept = {question(mapping): mapping for mapping in (*report.added, *report.extended, *report.unchanged)}
    checks = (check for entry in scanned for check in entry.checks)
    _add_checks(write, ((kept[entry.question], check) for entry, check in zip(proposed, checks, strict=True)))


def _add_older(write: Write, older: OlderCatalog, known: Container[Named]) -> None:
    """Store what scans of an older version found: of what the newer catalogs have, proposals and renames."""
    scanned = [entry for entry in older.catalog.entries if entry.unscanned is None]
    _add_catalog(write, older.catalog, (entry for entry in scanned if _named(entry) not in known))
    _add_proposals(write, older.catalog, [entry for entry in scanned if _named(entry) in known])
    library = older.catalog.header.library
    ids = architecture_ids(write, ((library, name) for name in older.renames))
    rows = (row for name, renames in older.renames.items() for row in rename_rows(ids[library, name], renames))
    write.change(insert(tables.renames), [*rows])


def _named(entry: CatalogEntry) -> Named:
    return entry.architecture.library, entry.architecture.name


def _architecture_row(entry: CatalogEntry) -> dict[str, Any]:
    seen = entry.architecture
    return {
        "library": seen.library,
        "name": seen.name,
        "class_name": seen.class_name,
        "library_version": seen.library_version,
        "fingerprint": seen.fingerprint,
        "method": entry.method,
        "proof": entry.proof,
        "towers": canonical(entry.towers),
    }


def _slot_rows(entries: Iterable[CatalogEntry], ids: dict[tuple[str, str], int]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        owner = ids[entry.architecture.library, entry.architecture.name]
        for position, slot in enumerate(entry.slots):
            yield {**slot.to_dict(), "architecture_id": owner, "position": position}


def _add_peft_checks(write: Write, stated: Iterable[Mapping], catalog: Catalog) -> None:
    """Store how PEFT's entries fared on the architectures scanned."""
    outcomes = {
        (entry.architecture.library, entry.architecture.name, peft_type): check
        for entry in catalog.entries
        for peft_type, check in entry.peft
    }
    keyed = ((mapping, outcomes.get((mapping.library, mapping.name, mapping.peft_type))) for mapping in stated)
    _add_checks(write, ((mapping, check) for mapping, check in keyed if check))


def _add_checks(write: Write, checked: Iterable[tuple[Mapping, Verification]]) -> None:
    rows = [
        check.to_dict()
        | {"counts": canonical(check.counts), "findings": canonical(check.findings)}
        | {"mapping_id": mapping.id, "serial": write.serial}
        for mapping, check in checked
    ]
    write.change(insert(tables.verifications), rows)
