"""Read the slots of an architecture, and their names in other library versions."""

from sqlalchemy import ColumnElement, Connection, bindparam, select

from ...domain.layers import Slot
from ...domain.versions import VersionedRename
from ..db import tables

SLOT_COLUMNS = tuple(column for column in tables.slots.c if column.name not in {"id", "architecture_id", "position"})
"""Columns of the fields of a slot."""

RENAME_COLUMNS = tuple(column for column in tables.renames.c if column.name not in {"id", "architecture_id"})
"""Columns of the fields of a rename."""


RECORD = (
    select(tables.architectures.c.class_name, *SLOT_COLUMNS)
    .join_from(tables.slots, tables.architectures)
    .where(tables.architectures.c.library == bindparam("library"), tables.architectures.c.name == bindparam("name"))
    .order_by(tables.slots.c.position)
)
"""The class and the slots of an architecture."""


def list_slots(connection: Connection, library: str, name: str) -> tuple[Slot, ...]:
    """Return the slots of an architecture, in the order of the model."""
    query = (
        select(*SLOT_COLUMNS)
        .join_from(tables.slots, tables.architectures)
        .where(_is_named(library, name))
        .order_by(tables.slots.c.position)
    )
    return tuple(Slot(**row) for row in connection.execute(query).mappings())


def list_renames(connection: Connection, library: str, name: str) -> tuple[VersionedRename, ...]:
    """Return the renames of an architecture's layers between library versions."""
    query = (
        select(*RENAME_COLUMNS)
        .join_from(tables.renames, tables.architectures)
        .where(_is_named(library, name))
        .order_by(tables.renames.c.id)
    )
    return tuple(VersionedRename(**row) for row in connection.execute(query).mappings())


SEEN_VERSIONS = (
    select(tables.verifications.c.library_version)
    .distinct()
    .join_from(tables.verifications, tables.mappings)
    .join(tables.architectures)
    .where(tables.architectures.c.library == bindparam("library"), tables.architectures.c.name == bindparam("name"))
)


def list_versions(connection: Connection, library: str, name: str) -> list[str]:
    """Return the library versions at which mappings of an architecture were verified."""
    return [*connection.execute(SEEN_VERSIONS, {"library": library, "name": name}).scalars()]


def _is_named(library: str, name: str) -> ColumnElement[bool]:
    return (tables.architectures.c.library == library) & (tables.architectures.c.name == name)
