"""List architectures and mappings page by page, and read one architecture in full."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from collections.abc import Mapping as Row
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, or_, select, tuple_

from ...domain.architectures import Architecture
from ...domain.mappings import ArchitectureDetail, ArchitectureSummary, Mapping
from ...errors import InvalidRequest, UnknownArchitecture
from ..db import tables
from .completion import Record
from .precedence import best, key_of, latest_revisions, to_facts
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
    query = select(*ARCHITECTURE_COLUMNS).order_by(_architectures.library, _architectures.name).limit(limit)
    query = query.where(_architectures.name.icontains(q, autoescape=True))
    if library is not None:
        query = query.where(_architectures.library == library)
    if after is not None:
        query = query.where(_is_beyond(after, or_equal=False))
    page = [Architecture(**row) for row in connection.execute(query).mappings()]
    if not page:
        return ()
    first, last = page[0], page[-1]
    offered: dict[tuple[str, str], list[Row[Any, Any]]] = defaultdict(list)
    query = (
        select(
            _architectures.library,
            _architectures.name,
            _mappings.source_kind,
            _mappings.peft_type,
            _mappings.preset,
        )
        .distinct()
        .join_from(tables.mappings, tables.architectures)
        .where(_mappings.yanked_at.is_(None))
        .where(_is_beyond((first.library, first.name), or_equal=True))
        .where(~_is_beyond((last.library, last.name), or_equal=False))
    )
    for row in connection.execute(query).mappings():
        offered[row["library"], row["name"]].append(row)
    return tuple(
        ArchitectureSummary(
            architecture,
            *(
                tuple(sorted({row[column] for row in offered[architecture.library, architecture.name]}))
                for column in ("source_kind", "peft_type", "preset")
            ),
        )
        for architecture in page
    )


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
        way_out = f"Scan it with: {scan_command(library, name)}"
        raise UnknownArchitecture(name, list_names(connection, library), way_out, library=library)
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


def to_architecture(row: Row[Any, Any]) -> Architecture:
    """Build an architecture from a row with its columns among others."""
    return Architecture(**{column.name: row[column.name] for column in ARCHITECTURE_COLUMNS})


def list_names(connection: Connection, library: str) -> list[str]:
    """Return the names of all architectures of a library, sorted."""
    query = select(_architectures.name).where(_architectures.library == library).order_by(_architectures.name)
    return [*connection.execute(query).scalars()]


def scan_command(library: str, name: str) -> str:
    """Return the command that would register an architecture."""
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
