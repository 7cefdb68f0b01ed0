"""Write the documents of architectures in a snapshot as rows, each in the place of the mirror's own."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from ...domain.architectures import Architecture, ModelPart
from ...domain.targets import TargetSpec
from ...schema import canonical, from_json, to_json
from ..db import tables
from ..db.encoding import MappingKey, mapping_id
from ..mappings.stored_names import RENAME_COLUMNS, SLOT_COLUMNS

MOST_ROWS = 2000
"""Rows that are kept in memory until they are written."""

_DOCUMENT = frozenset(
    ("architecture", "method", "proof", "prompt_facts", "parts", "towers", "slots", "renames", "revisions")
)
_SLOT = frozenset(column.name for column in SLOT_COLUMNS)
_RENAME = frozenset(column.name for column in RENAME_COLUMNS)
_CHECK = frozenset(("library_version", "status", "counts", "reached", "findings", "serial"))
_COPIED = ("id", "peft_type", "preset", "revision", "matched", "serial", "yank_reason", "version")
_REVISION = frozenset(
    (
        *_COPIED,
        "source",
        "spec",
        "coverage",
        "reasons",
        "created_at",
        "yanked_at",
        "formula",
        "versions",
        "verifications",
    )
)

Row = dict[str, Any]
Name = tuple[str, str]


class CopiedRows:
    """The rows of architectures from a snapshot, in the order of its lines.

    A document of other fields than this version writes raises ``ValueError``, ``KeyError`` or ``TypeError``.

    Args:
        connection: Connection in a transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids: dict[Name, int] = {}
        self._sources: dict[Name, int] = {}
        self._rows: dict[Table, list[Row]] = {}

    def read_ids(self) -> None:
        """Read the ids of the architectures that the mirror has."""
        table = tables.architectures.c
        rows = self._connection.execute(select(table.library, table.name, table.id))
        self._ids = {(library, name): number for library, name, number in rows}

    def add(self, document: Row) -> None:
        """Write the document of one architecture."""
        _require_fields(document, _DOCUMENT)
        architecture = from_json(Architecture, document["architecture"])
        owner = {"architecture_id": self._put_architecture(architecture, document)}
        for position, slot in enumerate(document["slots"]):
            _require_fields(slot, _SLOT)
            self._put(tables.slots, {**slot, **owner, "position": position})
        for rename in document["renames"]:
            _require_fields(rename, _RENAME)
            self._put(tables.renames, {**rename, **owner})
        for revision in document["revisions"]:
            _require_fields(revision, _REVISION)
            self._put(tables.mappings, self._to_mapping(architecture, revision) | owner)
            for check in revision["verifications"]:
                _require_fields(check, _CHECK)
                texts = {name: canonical(check[name]) for name in ("counts", "findings")}
                self._put(tables.verifications, {**check, **texts, "mapping_id": revision["id"]})
        if sum(map(len, self._rows.values())) >= MOST_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are kept in memory, those that others refer to first."""
        for table in (tables.slots, tables.renames, tables.mappings, tables.verifications):
            rows = self._rows.pop(table, [])
            if rows:
                self._connection.execute(insert(table), rows)

    def _put(self, table: Table, row: Row) -> None:
        self._rows.setdefault(table, []).append(row)

    def _put_architecture(self, architecture: Architecture, document: Row) -> int:
        """Write the row of an architecture in the place of the mirror's own, and return its id."""
        parts = [[*to_json(from_json(ModelPart, part)).values()] for part in document["parts"]]
        facts = document["prompt_facts"]
        values = {
            **{
                name: getattr(architecture, name)
                for name in ("class_name", "library_version", "fingerprint", "structure")
            },
            "method": document["method"],
            "proof": document["proof"],
            "prompt_facts": None if facts is None else canonical({**facts, **({"parts": parts} if parts else {})}),
            "towers": canonical(document["towers"]),
        }
        table, named = tables.architectures, (architecture.library, architecture.name)
        number = self._ids.get(named)
        if number is None:
            statement = insert(table).values(library=named[0], name=named[1], **values).returning(table.c.id)
            added: int = self._connection.execute(statement).scalar_one()
            self._ids[named] = added
            return added
        self._connection.execute(update(table).where(table.c.id == number).values(values))
        for owned in (tables.slots, tables.renames, tables.mappings):  # a mapping takes its verifications along
            self._connection.execute(delete(owned).where(owned.c.architecture_id == number))
        return number

    def _to_mapping(self, architecture: Architecture, revision: Row) -> Row:
        source, formula, versions = (revision[name] for name in ("source", "formula", "versions"))
        key = MappingKey(architecture.library, architecture.name, revision["peft_type"], revision["preset"])
        spec = TargetSpec.from_dict(revision["spec"])
        if revision["id"] != mapping_id(key, source["kind"], revision["revision"], spec):
            message = f"the id {revision['id']!r} is not that of the content"
            raise ValueError(message)
        times = {
            name: revision[name] and datetime.fromisoformat(revision[name]) for name in ("created_at", "yanked_at")
        }
        return {
            **{name: revision[name] for name in _COPIED},
            **times,
            **{name: canonical(revision[name]) for name in ("spec", "coverage", "reasons")},
            "source_id": self._source_id((source["kind"], source["version"])),
            "source_kind": source["kind"],
            "per_rank": formula and formula["per_rank"],
            "fixed": formula and formula["fixed"],
            "since": versions and versions["since"],
            "until": versions and versions["until"],
        }

    def _source_id(self, source: Name) -> int:
        if source not in self._sources:
            table, (kind, version) = tables.sources, source
            query = select(table.c.id).where(table.c.kind == kind, table.c.version == version)
            statement = insert(table).values(kind=kind, version=version).returning(table.c.id)
            known = self._connection.execute(query).scalar()
            self._sources[source] = known or self._connection.execute(statement).scalar_one()
        return self._sources[source]


def _require_fields(document: Row, names: frozenset[str]) -> None:
    if document.keys() != names:
        message = f"unknown or missing fields {sorted(document.keys() ^ names)}"
        raise ValueError(message)
