"""Store scans, mappings, verifications and PEFT's constants; a changed spec becomes the next revision of its source."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from ..catalog.entries import CatalogEntry
from ..domain.mappings import Mapping, Source, Verification
from ..domain.scans import Scan
from ..domain.versions import VersionedRename, parse_version
from ..errors import UnknownName
from ..schema import canonical, to_json
from .db import tables
from .db.audit_log import architecture_subject, mapping_subject
from .db.database import Transaction
from .mappings.precedence import key_of, latest_revisions
from .mappings.renames import find_renames
from .mappings.resolve import MAPPINGS, OF_ARCHITECTURE, read_mappings
from .mappings.stored_names import RENAME_COLUMNS, SLOT_COLUMNS, list_slots
from .peft_constants.reading import PeftConstants, entries_of_constants
from .records import Constant, Entry, StoreReport, entries_of_proposals
from .verification.verify import Verifier

Name = tuple[str, str]
"""Library and name of an architecture."""


def add_scan(write: Transaction, scan: Scan) -> StoreReport:
    """Store an architecture, its slots and proposals, and verify every mapping of it on the scan.

    Slots and other properties of the architecture are those of the newest library version scanned. A scan without a
    proof changes nothing where the same structure of the same version was proved.
    """
    library, name, version = scan.architecture.library, scan.architecture.name, scan.architecture.library_version
    write.log(architecture_subject(library, name), library_version=version)
    architecture_id = architecture_ids(write, [(library, name)])[library, name]
    table = tables.architectures
    is_own = table.c.id == architecture_id
    query = select(table.c.library_version, table.c.fingerprint, table.c.proof).where(is_own)
    stored = write.connection.execute(query).one()
    is_same = (stored.library_version, stored.fingerprint) == (version, scan.architecture.fingerprint)
    if is_same and scan.proof is None and stored.proof is not None:
        own = tuple(mapping for mapping in _list_latest(write, scan) if mapping.source.kind == "scanner")
        return StoreReport((), own, (), write.final_serial)
    if _put_renames(write, architecture_id, stored.library_version, scan):
        values = architecture_values(scan)
        if write.select(select(*(table.c[name] for name in values)).where(is_own)) != [values]:
            write.change(update(table).where(is_own).values(**values))
        _put_slots(write, architecture_id, scan)
    source = Source("scanner", metadata.version("loradar"))
    report = add_mappings(write, source, [*entries_of_proposals(scan.architecture, scan.proposals)], version)
    write.log(*(mapping_subject(mapping.id) for mapping in report.added))
    verified = {mapping.id: mapping for mapping in _list_latest(write, scan)}
    if version is not None:  # a class of the user's own has no version that a verification would hold for
        verifier = Verifier(scan)
        verified = {i: put_verification(write, mapping, verifier.check(mapping)) for i, mapping in verified.items()}
    kinds = (report.added, report.unchanged, report.extended)
    added, unchanged, extended = (tuple(verified.get(mapping.id, mapping) for mapping in kind) for kind in kinds)
    return StoreReport(added, unchanged, extended, write.final_serial)


def _list_latest(write: Transaction, scan: Scan) -> list[Mapping]:
    """Return the current mappings of an architecture for the version scanned."""
    scanned = scan.architecture
    values = {"library": scanned.library, "name": scanned.name}
    mappings = read_mappings(write.connection, OF_ARCHITECTURE, values, scanned.library_version)
    return latest_revisions(mappings, scanned.library_version)


def _put_renames(write: Transaction, architecture_id: int, stored: str | None, scan: Scan) -> bool:
    """Store the renames between the stored version and the one scanned; return whether the scan is not the older."""
    scanned, version = scan.architecture, scan.architecture.library_version
    if stored is None or version is None or stored == version:
        return True
    slots = list_slots(write.connection, scanned.library, scanned.name)
    is_newer = parse_version(version) > parse_version(stored)
    older, newer = (stored, version) if is_newer else (version, stored)
    found = find_renames(slots, scan.slots) if is_newer else find_renames(scan.slots, slots)
    renames = [VersionedRename(older, newer, rename.old, rename.new, rename.says) for rename in found]
    edges = tables.renames.c
    is_edge = (edges.architecture_id == architecture_id) & (edges.from_version == older) & (edges.to_version == newer)
    if write.select(select(*RENAME_COLUMNS).where(is_edge).order_by(edges.id)) != [*map(to_json, renames)]:
        write.change(delete(tables.renames).where(is_edge))
        write.change(insert(tables.renames), [*rename_rows(architecture_id, renames)])
    return is_newer


def rename_rows(architecture_id: int, renames: Iterable[VersionedRename]) -> Iterator[dict[str, Any]]:
    """Yield the row of each rename."""
    return ({"architecture_id": architecture_id, **to_json(rename)} for rename in renames)


def architecture_values(scanned: Scan | CatalogEntry) -> dict[str, Any]:
    """Return the columns of an architecture that a scan fills."""
    parts = {"parts": [[*to_json(part).values()] for part in scanned.parts]} if scanned.parts else {}
    return {
        "class_name": scanned.architecture.class_name,
        "library_version": scanned.architecture.library_version,
        "fingerprint": scanned.architecture.fingerprint,
        "structure": scanned.architecture.structure,
        "method": scanned.method,
        "proof": scanned.proof,
        "prompt_facts": canonical({**to_json(scanned.prompt_facts), **parts}),
        "towers": canonical(scanned.towers),
    }


def _put_slots(write: Transaction, architecture_id: int, scan: Scan) -> None:
    table = tables.slots
    is_own = table.c.architecture_id == architecture_id
    slots = [to_json(slot) for slot in scan.slots]
    if write.select(select(*SLOT_COLUMNS).where(is_own).order_by(table.c.position)) != slots:
        shared = {"architecture_id": architecture_id}
        write.change(delete(table).where(is_own))
        write.change(insert(table), [{**slot, **shared, "position": n} for n, slot in enumerate(slots)])


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
    known: dict[tuple[str, ...], list[Mapping]] = defaultdict(list)
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
            "spec": canonical(mapping.spec.stored),
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


def put_verification(write: Transaction, mapping: Mapping, found: Verification) -> Mapping:
    """Store the verification of a mapping that carries its stored one for the same version, and return it with it."""
    merged = merge_verifications(mapping.verification, found)
    if merged != mapping.verification:
        table = tables.verifications
        values = verification_row(write, merged)
        if mapping.verification:
            is_own = (table.c.mapping_id == mapping.id) & (table.c.library_version == merged.library_version)
            write.change(update(table).where(is_own).values(**values))
        else:
            write.change(insert(table).values(mapping_id=mapping.id, **values))
    return replace(mapping, verification=merged)


def merge_verifications(stored: Verification | None, found: Verification) -> Verification:
    """Return the verification to store: a proof by gradient stays where a later scan could not repeat it."""
    is_proved = stored and stored.status == "live" and found.status == "unproven"
    return replace(found, status="live") if is_proved else found


def verification_row(write: Transaction, found: Verification) -> dict[str, Any]:
    """Return the row of a verification."""
    texts = {"counts": canonical(found.counts), "findings": canonical(found.findings)}
    return to_json(found) | texts | {"serial": write.serial}


def add_constants(write: Transaction, constants: PeftConstants) -> StoreReport:
    """Store PEFT's tables, and each of their entries as a mapping with source ``peft``."""
    source = Source("peft", constants.version)
    write.log(peft=constants.version)
    own = source_id(write, source)
    table = tables.constants
    is_own = table.c.source_id == own
    uncertain = {entry.name: None for entry in constants.conditional if entry.key is None}
    rows = [
        {
            "name": name,
            "value": canonical(value),
            "conditional": canonical([to_json(entry) for entry in constants.conditional if entry.name == name]),
        }
        for name, value in {**uncertain, **constants.tables, **constants.values}.items()
    ]
    columns = (table.c.name, table.c.value, table.c.conditional)
    if write.select(select(*columns).where(is_own).order_by(table.c.id)) != rows:
        write.change(delete(table).where(is_own))
        write.change(insert(table), [{**row, "source_id": own} for row in rows])
    report = add_mappings(write, source, [*entries_of_constants(constants)])
    return replace(report, serial=write.final_serial)


def get_constant(connection: Connection, name: str, version: str | None) -> Constant:
    """Return one of PEFT's constants, by default from the version stored last."""
    table, source = tables.constants.c, tables.sources.c
    query = (
        select(table.name, table.value, table.conditional, source.kind, source.version)
        .join_from(tables.constants, tables.sources)
        .where(table.name == name)
        .order_by(table.id.desc())
    )
    if version is not None:
        query = query.where(source.version == version)
    row = connection.execute(query.limit(1)).first()
    if row is None:
        names = connection.execute(select(table.name).distinct().order_by(table.name)).scalars()
        raise UnknownName(name, [*names], version=version)
    return Constant(row.name, json.loads(row.value), tuple(json.loads(row.conditional)), Source(row.kind, row.version))
