"""The facts a new registry starts with: the catalog's scans and PEFT's tables, from the copies in ``data``."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from ..catalog import Catalog, CatalogEntry, list_catalogs, read_catalog
from ..mappings import Mapping, Source, Verification
from . import tables
from .canonical import canonical
from .constants_json import load_constants
from .entries import entries_of_proposals
from .revisions import add_mappings, architecture_ids
from .store import add_constants
from .write import Write

if TYPE_CHECKING:
    from sqlalchemy import Connection


def add_seed(connection: "Connection") -> None:
    """Fill a migrated, empty registry."""
    constants = load_constants()
    with Write(connection) as write:
        catalogs = [read_catalog(file) for file in list_catalogs()]
        for catalog in catalogs:
            _add_catalog(write, catalog)
        stated = add_constants(write, constants).added
        checked = [catalog for catalog in catalogs if catalog.header.peft == constants.version]
        _add_peft_checks(write, stated, checked)


def _add_catalog(write: Write, catalog: Catalog) -> None:
    """Store what a catalog's scans found, in a few statements; what was not scanned is no entry of the registry."""
    scanned = [entry for entry in catalog.entries if entry.unscanned is None]
    write.change(insert(tables.architectures), [_architecture_row(entry) for entry in scanned])
    ids = architecture_ids(write, ((e.architecture.library, e.architecture.name) for e in scanned))
    write.change(insert(tables.slots), [*_slot_rows(scanned, ids)])
    source = Source("scanner", catalog.header.loradar)
    proposed = [p for entry in scanned for p in entries_of_proposals(entry.architecture, entry.proposals)]
    added = add_mappings(write, source, proposed).added
    checks = (check for entry in scanned for check in entry.checks)
    _add_checks(write, zip(added, checks, strict=True))


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
        "towers": canonical(entry.towers),
    }


def _slot_rows(entries: Iterable[CatalogEntry], ids: dict[tuple[str, str], int]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        owner = ids[entry.architecture.library, entry.architecture.name]
        for position, slot in enumerate(entry.slots):
            yield {**slot.to_dict(), "architecture_id": owner, "position": position}


def _add_peft_checks(write: Write, stated: Iterable[Mapping], catalogs: Iterable[Catalog]) -> None:
    """Store how PEFT's entries fared on the architectures scanned."""
    outcomes = {
        (entry.architecture.library, entry.architecture.name, peft_type): check
        for catalog in catalogs
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
