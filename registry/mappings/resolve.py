"""Read mappings from the database, and resolve a lookup to one of them."""

from collections import defaultdict
from collections.abc import Mapping as Values
from typing import Any

from sqlalchemy import Connection, Select, String, and_, bindparam, cast, func, literal_column, or_, select

from ...catalog.layer_names import find_history
from ...domain.architectures import Architecture
from ...domain.choosing.query import Selection
from ...domain.mappings import Mapping
from ...domain.methods import get_method
from ...domain.versions import neighbours
from ...domain.vocabulary import STANDS_FOR
from ..db import tables
from ..db.encoding import MappingKey
from .completion import Record
from .precedence import (
    DEMOTED,
    best,
    best_for,
    find_answer,
    latest_revisions,
    of_preset,
    rank,
    stored_under,
    to_mapping,
)
from .ranges import Place, locate
from .renames import is_stale, translate_mapping
from .stored_names import RECORD, list_renames, list_slots, list_versions

_mappings, _architectures, _sources = tables.mappings, tables.architectures, tables.sources
_verifications, _others = tables.verifications, tables.verifications.alias("others")
_version = cast(bindparam("library_version"), String(64))

MAPPINGS = (
    select(
        _architectures.c.library,
        _architectures.c.name,
        *(
            _mappings.c[column]
            for column in ("id", "peft_type", "preset", "revision", "spec", "matched", "per_rank", "fixed", "coverage")
        ),
        _mappings.c.reasons,
        _mappings.c.since,
        _mappings.c.until,
        _architectures.c.prompt_facts,
        _sources.c.kind,
        _sources.c.version,
        *(_verifications.c[column] for column in ("status", "library_version", "counts", "reached", "findings")),
    )
    .join_from(_mappings, _architectures)
    .join(_sources, _sources.c.id == _mappings.c.source_id)
    .outerjoin(
        _verifications,
        _verifications.c.id
        == func.coalesce(
            select(_others.c.id)
            .where(_others.c.mapping_id == _mappings.c.id)
            .where(_others.c.library_version == func.coalesce(_version, _architectures.c.library_version))
            .correlate(_mappings, _architectures)
            .scalar_subquery(),
            select(_others.c.id)
            .where(_others.c.mapping_id == _mappings.c.id, _version.is_(None))
            .order_by(_others.c.serial.desc(), _others.c.id.desc())
            .limit(literal_column("1"))
            .offset(literal_column("0"))
            .correlate(_mappings)
            .scalar_subquery(),
        ),
    )
)
"""Mappings with their verification for bound parameter ``library_version``.

If that is NULL: for the version the architecture is known at, which is the newest scanned, or else the verification
recorded last.
"""

IN_USE = MAPPINGS.where(_mappings.c.yanked_at.is_(None))

IS_OF_ARCHITECTURE = and_(_architectures.c.library == bindparam("library"), _architectures.c.name == bindparam("name"))
OF_ARCHITECTURE = IN_USE.where(IS_OF_ARCHITECTURE)

_IS_OF_FAMILY = _mappings.c.peft_type.in_([bindparam("peft_type"), bindparam("family")])
LOOKUP = OF_ARCHITECTURE.where(_IS_OF_FAMILY)
"""Candidates of a lookup: mappings for the method itself and for its family, of every preset."""

_IS_OF_PRESET = _mappings.c.preset.in_([bindparam("preset"), bindparam("same")])
_OF_FINGERPRINT = IN_USE.where(_architectures.c.fingerprint == bindparam("fingerprint"), _IS_OF_FAMILY, _IS_OF_PRESET)

_IS_OF_METHOD = and_(_mappings.c.peft_type == bindparam("peft_type"), _mappings.c.preset == bindparam("preset"))
_OF_KEY = OF_ARCHITECTURE.where(_IS_OF_METHOD)
_OF_STRUCTURE = IN_USE.where(
    _architectures.c.structure == bindparam("structure"),
    _mappings.c.peft_type == bindparam("peft_type"),
    _IS_OF_PRESET,
)


def read_mappings(
    connection: Connection, query: Select[Any], values: Values[str, Any], library_version: str | None = None
) -> list[Mapping]:
    """Return the mappings of a query built on ``MAPPINGS``, with the values of its parameters."""
    rows = connection.execute(query, {**values, "library_version": library_version}).mappings()
    return [to_mapping(row) for row in rows]


def find_mapping(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection | None = None
) -> Mapping | None:
    """Return the mapping to use, or ``None`` if none is known, or none that is known to hold at a version.

    ``selection`` gives the ranks of LoRA, by default those of the preset.
    """
    method = get_method(key.peft_type)
    values = {**key._asdict(), "family": stored_under(method)}
    candidates: list[Mapping] = []

    def read(version: str | None) -> list[Mapping]:
        found = read_mappings(connection, LOOKUP, values, version)
        candidates.extend(found)
        return of_preset(found, key.preset)

    place = locate_version(connection, key, library_version)
    answer = find_answer(method, place, read, lambda mapping: in_current_names(connection, mapping))
    if answer is None:
        return None
    rows = connection.execute(RECORD, values).mappings().all()
    return Record.of_rows(candidates, map(dict, rows)).complete(answer, selection)


def locate_version(connection: Connection, key: MappingKey, library_version: str | None) -> Place:
    """Return the place of a version among those at which an architecture was scanned."""
    if library_version is None:
        return Place(None)
    seen = list_versions(connection, key.library, key.name)
    return locate(library_version, seen, find_history(key.library, key.name))


def read_answers(connection: Connection, key: MappingKey, library_version: str | None) -> list[Mapping]:
    """Return the best mapping at each scanned version next to a requested one, also one that is dead there."""
    method = get_method(key.peft_type)
    place = locate_version(connection, key, library_version)
    is_around = place.version is not None and place.seen
    versions = neighbours(place.version, place.seen) if is_around and place.version else [None]
    values = {**key._asdict(), "family": stored_under(method)}
    read = (of_preset(read_mappings(connection, LOOKUP, values, version), key.preset) for version in versions)
    found = (best_for(method, candidates, version) for candidates, version in zip(read, versions, strict=True))
    return [mapping for mapping in found if mapping]


def list_answering(connection: Connection, key: MappingKey) -> tuple[Mapping, ...]:
    """Return the current mapping of each source for a key, the first by precedence first."""
    return tuple(sorted(latest_revisions(read_mappings(connection, _OF_KEY, key._asdict())), key=rank))


def in_current_names(connection: Connection, mapping: Mapping) -> Mapping:
    """Return a stale mapping in the layer names of the newest version, if they are known; any other unchanged."""
    if not is_stale(mapping):
        return mapping
    name = (connection, mapping.library, mapping.name)
    return translate_mapping(mapping, list_slots(*name), list_renames(*name))


def find_by_fingerprint(connection: Connection, fingerprint: str, peft_type: str, preset: str) -> Mapping | None:
    """Return the mapping to use for an architecture of any name with this fingerprint, or ``None``."""
    method = get_method(peft_type)
    values = {
        "fingerprint": fingerprint,
        "peft_type": method.name,
        "family": stored_under(method),
        **_presets(preset),
    }
    return best_for(method, of_preset(read_mappings(connection, _OF_FINGERPRINT, values), preset))


def list_by_structure(connection: Connection, structure: str, peft_type: str, preset: str) -> tuple[Mapping, ...]:
    """Return the mapping to use of each architecture with this structure, under any layer names, best first.

    Those verified dead or partial are left out.
    """
    values = {"structure": structure, "peft_type": peft_type, **_presets(preset)}
    by_architecture: dict[tuple[str, str], list[Mapping]] = defaultdict(list)
    for mapping in of_preset(read_mappings(connection, _OF_STRUCTURE, values), preset):
        by_architecture[mapping.library, mapping.name].append(mapping)
    found = filter(None, map(best, by_architecture.values()))
    sound = (one for one in found if not one.verification or one.verification.status not in DEMOTED)
    return tuple(sorted(sound, key=rank))


def _presets(preset: str) -> dict[str, str]:
    """Return the parameters of a query for a preset, and for the one that stands for it."""
    return {"preset": preset, "same": STANDS_FOR.get(preset, preset)}


def list_alike(connection: Connection, architecture: Architecture) -> tuple[Architecture, ...]:
    """Return the other architectures with the fingerprint of this one, then those with its structure alone."""
    table = _architectures.c
    query = (
        select(table.library, table.name, table.class_name, table.library_version, table.fingerprint, table.structure)
        .where(
            or_(
                table.fingerprint == (architecture.fingerprint or ""),
                table.structure == (architecture.structure or ""),
            )
        )
        .where(or_(table.library != architecture.library, table.name != architecture.name))
        .order_by(table.library.desc(), table.name)
    )
    found = [Architecture(**row) for row in connection.execute(query).mappings()]
    return tuple(sorted(found, key=lambda other: other.fingerprint != architecture.fingerprint))


def find_answering(connection: Connection, key: MappingKey) -> str | None:
    """Return an architecture with the same fingerprint that has a mapping this one lacks, or ``None``."""
    table, other = _architectures.c, tables.architectures.alias("other")
    query = (
        select(other.c.library, other.c.name)
        .join_from(_architectures, other, and_(other.c.fingerprint == table.fingerprint, other.c.id != table.id))
        .join(_mappings, _mappings.c.architecture_id == other.c.id)
        .where(IS_OF_ARCHITECTURE, _IS_OF_METHOD, _mappings.c.yanked_at.is_(None))
        .order_by(other.c.library.desc(), other.c.name)
        .limit(1)
    )
    row = connection.execute(query, key._asdict()).first()
    return f"{row.library}:{row.name}" if row else None
