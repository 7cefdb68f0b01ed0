"""List architectures and mappings page by page, and read one architecture in full."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Mapping as Row
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, or_, select, tuple_

from ...data import read_facts
from ...domain.architectures import Architecture
from ...domain.mappings import ArchitectureDetail, ArchitectureSummary, Mapping
from ...domain.serving import list_engines
from ...domain.vocabulary import Status, Tower
from ...errors import InvalidReference, InvalidRequest, UnknownArchitecture
from ...references import LIBRARIES
from ...similar_names import nearest
from ..db import tables
from .completion import Record
from .precedence import DEMOTED, PRECEDENCE, best, key_of, latest_revisions, to_facts
from .resolve import IN_USE, OF_ARCHITECTURE, in_current_names, read_mappings
from .stored_names import list_renames, list_slots

_architectures, _mappings = tables.architectures.c, tables.mappings.c

ARCHITECTURE_COLUMNS = tuple(
    _architectures[name] for name in ("library", "name", "class_name", "library_version", "fingerprint", "structure")
)
"""Columns of the fields of an architecture."""


def list_architectures(
    connection: Connection, library: str | None, q: str, after: tuple[str, str] | None, limit: int | None
) -> tuple[ArchitectureSummary, ...]:
    """Return up to ``limit`` architectures with ``q`` in their names, sorted, from beyond (library, name)."""
    columns = (*ARCHITECTURE_COLUMNS, _architectures.towers)
    query = select(*columns).order_by(_architectures.library, _architectures.name).limit(limit)
    query = query.where(_architectures.name.icontains(q, autoescape=True))
    if library is not None:
        query = query.where(_architectures.library == library)
    if after is not None:
        query = query.where(_is_beyond(after, or_equal=False))
    page = [*connection.execute(query).mappings()]
    if not page:
        return ()
    offered = _list_offered(connection, to_architecture(page[0]), to_architecture(page[-1]))
    return tuple(_summarise(to_architecture(row), json.loads(row["towers"]), offered) for row in page)


def _list_offered(
    connection: Connection, first: Architecture, last: Architecture
) -> dict[tuple[str, str], list[Row[Any, Any]]]:
    """Return the registered facts of each architecture from the first to the last.

    Verifications are those for the version at which an architecture is known.
    """
    offered: dict[tuple[str, str], list[Row[Any, Any]]] = defaultdict(list)
    checks = tables.verifications.c
    current = and_(checks.mapping_id == _mappings.id, checks.library_version == _architectures.library_version)
    query = (
        select(
            _architectures.library,
            _architectures.name,
            _mappings.source_kind,
            _mappings.peft_type,
            _mappings.preset,
            _mappings.revision,
            checks.status,
        )
        .join_from(tables.mappings, tables.architectures)
        .outerjoin(tables.verifications, current)
        .where(_mappings.yanked_at.is_(None))
        .where(_is_beyond((first.library, first.name), or_equal=True))
        .where(~_is_beyond((last.library, last.name), or_equal=False))
    )
    for row in connection.execute(query).mappings():
        offered[row["library"], row["name"]].append(row)
    return offered


def _summarise(
    architecture: Architecture,
    towers: Row[Tower, Collection[str]],
    offered: Row[tuple[str, str], Sequence[Row[Any, Any]]],
) -> ArchitectureSummary:
    """Return the summary of an architecture.

    Args:
        architecture: The architecture.
        towers: Path prefixes of its towers.
        offered: Source, method, preset, revision and status of the mappings in use, by library and name.
    """
    rows = offered.get((architecture.library, architecture.name), ())
    default = [row for row in rows if (row["peft_type"], row["preset"]) == ("LORA", "default")]
    sources, methods, presets = (
        tuple(sorted({row[column] for row in rows})) for column in ("source_kind", "peft_type", "preset")
    )
    return ArchitectureSummary(
        architecture,
        sources,
        methods,
        presets,
        task=find_task(architecture.library, architecture.class_name),
        status=_find_status(default),
        peft=_find_status([row for row in default if row["source_kind"] == "peft"]),
        towers=tuple(tower for tower, prefixes in towers.items() if prefixes),
        engines=_list_engines(architecture.library, architecture.class_name),
    )


def _find_status(rows: Sequence[Row[Any, Any]]) -> Status | None:
    """Return the status of the mapping that a lookup would take, by source and by what its check found."""

    def rank(row: Row[Any, Any]) -> tuple[int, int, bool, int]:
        # A revision of another library version has no verification for this one.
        return (
            DEMOTED.get(row["status"], 0),
            PRECEDENCE.index(row["source_kind"]),
            row["status"] is None,
            -row["revision"],
        )

    first = min(rows, key=rank, default=None)
    return None if first is None else first["status"] or "unproven"


@cache
def find_task(library: str, class_name: str | None) -> str:
    """Return the task of a class, by ``data/tasks.toml``."""
    tasks = read_facts("tasks.toml")["task"]
    fitting = (task for task in tasks if library in task["libraries"] and re.search(task["classes"], class_name or ""))
    return next((str(task["name"]) for task in fitting), "other")


@cache
def _list_engines(library: str, class_name: str | None) -> tuple[str, ...]:
    if library != "transformers":
        return ()
    return tuple(engine.key for engine in list_engines() if class_name in engine.supports)


def _is_beyond(name: tuple[str, str], *, or_equal: bool) -> ColumnElement[bool]:
    """Return the condition that an architecture follows another one, in a form that uses the index of names."""
    library, own = name
    follows = _architectures.name >= own if or_equal else _architectures.name > own
    return or_(_architectures.library > library, and_(_architectures.library == library, follows))


def get_architecture(connection: Connection, library: str, name: str) -> ArchitectureDetail:
    """Return everything known about an architecture."""
    query = select(tables.architectures).where(_architectures.library == library, _architectures.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise _unknown(library, name, list_names(connection, library))
    order = (_mappings.peft_type, _mappings.preset, _mappings.source_kind, _mappings.revision)
    revisions = read_mappings(connection, OF_ARCHITECTURE.order_by(*order), {"library": library, "name": name})
    by_key: dict[tuple[str, ...], list[Mapping]] = defaultdict(list)
    for mapping in revisions:
        by_key[key_of(mapping)].append(mapping)
    facts, parts = to_facts(row["prompt_facts"])
    slots = list_slots(connection, library, name)
    record = Record(revisions, slots, row["class_name"])
    current = (in_current_names(connection, found) for group in by_key.values() if (found := best(group)))
    return ArchitectureDetail(
        architecture=to_architecture(row),
        method=row["method"],
        proof=row["proof"],
        prompt_facts=facts,
        towers={tower: tuple(prefixes) for tower, prefixes in json.loads(row["towers"]).items()},
        slots=slots,
        mappings=tuple(map(record.with_evidence, current)),
        revisions=tuple(revisions),
        renames=list_renames(connection, library, name),
        parts=parts,
    )


def _unknown(library: str, name: str, names: Sequence[str]) -> UnknownArchitecture:
    """Return the error for an architecture that is not here: only one that its library may have is to be scanned."""
    if nearest(name, names, 1):
        return UnknownArchitecture(name, names, library=library)
    from ...references.resolver import resolve  # noqa: PLC0415 - it reads the known names

    try:
        may_exist = library not in LIBRARIES or any(not each.is_guess for each in resolve(name, library))
    except InvalidReference:  # such as ``..``, which names nothing in any library
        may_exist = False
    scan = scan_command(library, name)
    if may_exist:
        return UnknownArchitecture(name, names, f"Scan it with: {scan}", library=library, command=scan)
    command = f"loradar list {library}"
    way_out = f"List what is known with: {command}; what only a newer {library} has, scan with: {scan}"
    return UnknownArchitecture(name, names, way_out, library=library, command=command)


def to_architecture(row: Row[Any, Any]) -> Architecture:
    """Build an architecture from a row with its columns among others."""
    return Architecture(**{column.name: row[column.name] for column in ARCHITECTURE_COLUMNS})


def list_names(connection: Connection, library: str) -> list[str]:
    """Return the names of all architectures of a library, sorted."""
    query = select(_architectures.name).where(_architectures.library == library).order_by(_architectures.name)
    return [*connection.execute(query).scalars()]


def scan_command(library: str, name: str) -> str:
    """Return the command that would register an architecture."""
    if library == "torch":  # registered as package.module.Model, which is written package.module:Model
        name = ":".join(name.rsplit(".", 1))
    return f"loradar scan {name if library == 'transformers' else f'{library}:{name}'} --store"


def list_references(connection: Connection) -> list[str]:
    """Return the references of all architectures."""
    return [*connection.execute(select(_architectures.library + ":" + _architectures.name)).scalars()]


def list_mappings(
    connection: Connection, library: str, source: str | None, library_version: str | None, names: Collection[str]
) -> tuple[Mapping, ...]:
    """Return the current revisions of a library's mappings for a version, each verified for it, sorted."""
    query = IN_USE.where(_architectures.library == library)
    if names:
        query = query.where(_architectures.name.in_(names))
    if source is not None:
        query = query.where(_mappings.source_kind == source)
    found = latest_revisions(read_mappings(connection, query, {}, library_version), library_version)
    return tuple(sorted(found, key=lambda mapping: (key_of(mapping), mapping.source.kind)))


def list_verified_versions(connection: Connection, library: str, source: str) -> tuple[str, ...]:
    """Return the versions of a library that mappings of a kind of source were verified on."""
    query = (
        select(tables.verifications.c.library_version)
        .distinct()
        .select_from(tables.verifications.join(tables.mappings).join(tables.architectures))
        .where(_architectures.library == library, _mappings.source_kind == source)
    )
    return tuple(connection.execute(query).scalars())


class MappingFilter(NamedTuple):
    """Properties of the mappings to list; ``None`` and an empty text stand for all."""

    source: str | None = None
    peft_type: str | None = None
    status: str | None = None
    q: str = ""
    library: str | None = None

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """Yield the conditions of the query."""
        yield _architectures.name.icontains(self.q, autoescape=True)
        columns = (_architectures.library, _mappings.source_kind, _mappings.peft_type, tables.verifications.c.status)
        for column, value in zip(columns, (self.library, self.source, self.peft_type, self.status), strict=True):
            if value is not None:
                yield column == value


_PLACE = re.compile(r"([^:]+):(.+)/([^/]+)/([^/]+)/([^/]+)/([0-9]{1,9})", re.DOTALL)
_START = "!:!/!/!/!/0"
"""A place before any mapping: without it, SQLite would sort all mappings for the first page."""


def find_mappings(connection: Connection, wanted: MappingFilter, after: str | None, limit: int) -> tuple[Mapping, ...]:
    """Return up to ``limit`` mappings in use, sorted, from beyond place ``after``.

    Each has the verification for the version its architecture is known at, or else the latest one; the filter's
    status applies to that one.
    """
    order = (
        _architectures.library,
        _architectures.name,
        _mappings.peft_type,
        _mappings.preset,
        _mappings.source_kind,
        _mappings.revision,
    )
    query = IN_USE.where(*wanted.conditions()).order_by(*order).limit(limit)
    place = _PLACE.fullmatch(_START if after is None else after)
    if place is None:
        message = f"'after' is {after!r}, which is no place in the list. Give the 'next' of a page."
        raise InvalidRequest(message, field="query.after", value=after)
    *texts, revision = place.groups()
    # The first condition repeats a part of the second in a form for which both databases use the index of names.
    query = query.where(_is_beyond((texts[0], texts[1]), or_equal=True))
    query = query.where(tuple_(*order) > tuple_(*texts, int(revision)))
    return tuple(read_mappings(connection, query, {}))


def mapping_place(mapping: Mapping) -> str:
    """Return the place of a mapping in the list, such as ``transformers:llama/LORA/default/peft/1``."""
    key = f"{mapping.library}:{mapping.name}/{mapping.peft_type}/{mapping.preset}"
    return f"{key}/{mapping.source.kind}/{mapping.revision}"
