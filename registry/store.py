"""What is written: the outcome of a scan, with a check of every mapping against it, and PEFT's tables."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from importlib import metadata
from typing import Any

from sqlalchemy import and_, delete, insert, select, update

from ..catalog.entries import CatalogEntry
from ..domain.layers import Slot
from ..domain.mappings import Mapping, Source, Verification
from ..domain.scans import Scan
from ..domain.schema import to_json
from ..domain.versions import VersionedRename, parse_version
from .db import tables
from .db.canonical import canonical
from .db.subjects import architecture_subject, mapping_subject
from .db.transaction import Write
from .mappings.entries import entries_of_proposals
from .mappings.resolve import OF_ARCHITECTURE, latest_revisions, to_mapping
from .mappings.revisions import add_mappings, architecture_ids
from .peft_constants.reading import PeftConstants, entries_of_constants
from .results import StoreReport
from .verification.verify import Verifier
from .versions.renames import find_renames
from .versions.stored_names import list_slots


def add_scan(write: Write, scan: Scan) -> StoreReport:
    """Store an architecture, its slots and proposals, and check every mapping of it against the scan.

    Slots and what else is known of the architecture as a whole are those of the newest library version scanned. A scan
    that proved nothing changes nothing where the same structure of the same version was proved: it knows less.
    """
    library, name = scan.architecture.library, scan.architecture.name
    write.tell(architecture_subject(library, name), library_version=scan.architecture.library_version)
    architecture_id = architecture_ids(write, [(library, name)])[library, name]
    if scan.proof is None and _is_proved(write, architecture_id, scan):
        return StoreReport((), _list_own(write, scan), (), write.outcome)
    if _put_way(write, architecture_id, scan):
        _put_architecture(write, architecture_id, scan)
        _put_slots(write, architecture_id, scan)
    source, proposed = Source("scanner", metadata.version("loradar")), scan.proposals
    entries = [*entries_of_proposals(scan.architecture, proposed)]
    report = add_mappings(write, source, entries, scan.architecture.library_version)
    write.tell(*(mapping_subject(mapping.id) for mapping in report.added))
    verified = _verify_all(write, scan)
    kinds = (report.added, report.unchanged, report.extended)
    added, unchanged, extended = (tuple(verified.get(mapping.id, mapping) for mapping in kind) for kind in kinds)
    return StoreReport(added, unchanged, extended, write.outcome)


def _is_proved(write: Write, architecture_id: int, scan: Scan) -> bool:
    """Tell whether the very structure that was scanned is on record with a proof."""
    table = tables.architectures
    columns = (table.c.library_version, table.c.fingerprint, table.c.proof)
    known = write.select(select(*columns).where(table.c.id == architecture_id))[0]
    seen = scan.architecture
    is_same = (known["library_version"], known["fingerprint"]) == (seen.library_version, seen.fingerprint)
    return is_same and known["proof"] is not None


def _list_own(write: Write, scan: Scan) -> tuple[Mapping, ...]:
    """Return what is on record of the scanner's for an architecture."""
    return tuple(mapping for mapping in _list_latest(write, scan) if mapping.source.kind == "scanner")


def _put_way(write: Write, architecture_id: int, scan: Scan) -> bool:
    """Store the renames between the version known and the one scanned; tell whether the scan is not the older."""
    table = tables.architectures
    known = write.select(select(table.c.library_version).where(table.c.id == architecture_id))[0]["library_version"]
    seen = scan.architecture.library_version
    if known is None or seen is None or known == seen:
        return True
    stored = list_slots(write.reader, scan.architecture.library, scan.architecture.name)
    is_newer = parse_version(seen) > parse_version(known)
    older, newer = (known, seen) if is_newer else (seen, known)
    found = find_renames(stored, scan.slots) if is_newer else find_renames(scan.slots, stored)
    renames = [VersionedRename(older, newer, rename.old, rename.new, rename.says) for rename in found]
    _put_renames(write, architecture_id, renames, (older, newer))
    return is_newer


def _put_renames(write: Write, architecture_id: int, renames: list[VersionedRename], ends: tuple[str, str]) -> None:
    """Replace what is stored of the way between two versions."""
    table = tables.renames
    way = dict(zip(("architecture_id", "from_version", "to_version"), (architecture_id, *ends), strict=True))
    is_way = and_(*(table.c[name] == value for name, value in way.items()))
    rows = [*rename_rows(architecture_id, renames)]
    columns = [column for column in table.c if column.name != "id"]
    if write.select(select(*columns).where(is_way).order_by(table.c.id)) != rows:
        write.change(delete(table).where(is_way))
        write.change(insert(table), rows)


def rename_rows(architecture_id: int, renames: Iterable[VersionedRename]) -> Iterator[dict[str, Any]]:
    """Yield the row of each rename."""
    return ({"architecture_id": architecture_id, **to_json(rename)} for rename in renames)


def architecture_values(scanned: Scan | CatalogEntry) -> dict[str, Any]:
    """Return the columns of an architecture that a scan fills."""
    return {
        "class_name": scanned.architecture.class_name,
        "library_version": scanned.architecture.library_version,
        "fingerprint": scanned.architecture.fingerprint,
        "structure": scanned.architecture.structure,
        "method": scanned.method,
        "proof": scanned.proof,
        "prompt_facts": canonical(to_json(scanned.prompt_facts)),
        "towers": canonical(scanned.towers),
    }


def _put_architecture(write: Write, architecture_id: int, scan: Scan) -> None:
    table = tables.architectures
    values = architecture_values(scan)
    columns = [table.c[name] for name in values]
    if write.select(select(*columns).where(table.c.id == architecture_id)) != [values]:
        write.change(update(table).where(table.c.id == architecture_id).values(**values))


def _put_slots(write: Write, architecture_id: int, scan: Scan) -> None:
    table = tables.slots
    is_ours = table.c.architecture_id == architecture_id
    slots = [to_json(slot) for slot in scan.slots]
    columns = [table.c[field.name] for field in fields(Slot)]
    if write.select(select(*columns).where(is_ours).order_by(table.c.position)) == slots:
        return
    write.change(delete(table).where(is_ours))
    shared = {"architecture_id": architecture_id}
    write.change(insert(table), [{**slot, **shared, "position": n} for n, slot in enumerate(slots)])


def _verify_all(write: Write, scan: Scan) -> dict[str, Mapping]:
    """Check the latest mappings of the architecture, and return them by id with their verification."""
    mappings = _list_latest(write, scan)
    if scan.architecture.library_version is None:  # a user's own class: there is no version the outcome would hold for
        return {mapping.id: mapping for mapping in mappings}
    verifier = Verifier(scan)
    return {mapping.id: put_verification(write, mapping, verifier.check(mapping)) for mapping in mappings}


def _list_latest(write: Write, scan: Scan) -> list[Mapping]:
    """Return the latest mappings of an architecture that stand at the version scanned."""
    seen = scan.architecture
    asked = {"library": seen.library, "name": seen.name, "library_version": seen.library_version}
    return latest_revisions(map(to_mapping, write.reader.rows(OF_ARCHITECTURE, **asked)), seen.library_version)


def put_verification(write: Write, mapping: Mapping, found: Verification) -> Mapping:
    """Store how a mapping fared, unless that is what it carries: what is on record for the same version."""
    settled = settle(mapping.verification, found)
    if settled != mapping.verification:
        _write_verification(write, mapping, settled)
    return replace(mapping, verification=settled)


def settle(known: Verification | None, found: Verification) -> Verification:
    """Return what to record: a proof by gradient stands where a later scan could not repeat it."""
    is_proved = known and known.status == "live" and found.status == "unproven"
    return replace(found, status="live") if is_proved else found


def _write_verification(write: Write, mapping: Mapping, found: Verification) -> None:
    table = tables.verifications
    values = verification_row(write, found)
    if mapping.verification:
        is_same = (table.c.mapping_id == mapping.id) & (table.c.library_version == found.library_version)
        write.change(update(table).where(is_same).values(**values))
    else:
        write.change(insert(table).values(mapping_id=mapping.id, **values))


def verification_row(write: Write, found: Verification) -> dict[str, Any]:
    """Return a verification as it is stored."""
    texts = {"counts": canonical(found.counts), "findings": canonical(found.findings)}
    return to_json(found) | texts | {"serial": write.serial}


def add_constants(write: Write, constants: PeftConstants) -> StoreReport:
    """Store PEFT's tables raw, and each of their entries as a mapping with source ``peft``."""
    source = Source("peft", constants.version)
    write.tell(peft=constants.version)
    _put_constants(write, source, constants)
    report = add_mappings(write, source, [*entries_of_constants(constants)])
    return replace(report, serial=write.outcome)


def _put_constants(write: Write, source: Source, constants: PeftConstants) -> None:
    source_id = write.get_or_add(tables.sources, kind=source.kind, version=source.version)
    table = tables.constants
    is_ours = table.c.source_id == source_id
    columns = [table.c[name] for name in ("name", "value", "conditional")]
    rows = [*_constant_rows(constants)]
    if write.select(select(*columns).where(is_ours).order_by(table.c.id)) == rows:
        return
    write.change(delete(table).where(is_ours))
    write.change(insert(table), [{**row, "source_id": source_id} for row in rows])


def _constant_rows(constants: PeftConstants) -> Iterator[dict[str, str]]:
    uncertain = {entry.name: None for entry in constants.conditional if entry.key is None}
    for name, value in {**uncertain, **constants.tables, **constants.values}.items():
        conditional = [to_json(entry) for entry in constants.conditional if entry.name == name]
        yield {"name": name, "value": canonical(value), "conditional": canonical(conditional)}
