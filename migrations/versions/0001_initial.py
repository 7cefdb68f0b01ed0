"""Make the first tables: architectures, slots, mappings, verifications, PEFT's constants, the serial."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import conv  # marks a name as final, as ``op.f`` does in a running migration

revision: str = "0001"
down_revision: str | None = None


def _refers(table: str, column: str, other: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    name = conv(f"fk_{table}_{column}_{other}")
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete=ondelete)


TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "sources": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.CheckConstraint("kind IN ('community', 'peft', 'scanner')", name=conv("ck_sources_kind")),
        sa.PrimaryKeyConstraint("id", name=conv("pk_sources")),
        sa.UniqueConstraint("kind", "version", name=conv("uq_sources_kind_version")),
    ),
    "architectures": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("library", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("class_name", sa.String(255)),
        sa.Column("library_version", sa.String(64)),
        sa.Column("fingerprint", sa.String(71)),
        sa.Column("method", sa.String(16)),
        sa.Column("towers", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_architectures")),
        sa.UniqueConstraint("library", "name", name=conv("uq_architectures_library_name")),
    ),
    "slots": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tower", sa.String(16), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        _refers("slots", "architecture_id", "architectures", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=conv("pk_slots")),
        sa.UniqueConstraint("architecture_id", "position", name=conv("uq_slots_architecture_id_position")),
    ),
    "mappings": (
        sa.Column("id", sa.String(71), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("source_kind", sa.String(16), nullable=False),
        sa.Column("peft_type", sa.String(64), nullable=False),
        sa.Column("preset", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("matched", sa.Integer()),
        sa.Column("trainable", sa.BigInteger()),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("yanked_at", sa.DateTime(timezone=True)),
        sa.Column("yank_reason", sa.Text()),
        sa.CheckConstraint("revision >= 1", name=conv("ck_mappings_revision")),
        _refers("mappings", "architecture_id", "architectures"),
        _refers("mappings", "source_id", "sources"),
        sa.PrimaryKeyConstraint("id", name=conv("pk_mappings")),
        sa.UniqueConstraint(
            *("architecture_id", "peft_type", "preset", "source_kind", "revision"), name=conv("uq_mappings_revision")
        ),
    ),
    "verifications": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mapping_id", sa.String(71), nullable=False),
        sa.Column("library_version", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("reached", sa.Float(), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.CheckConstraint("status IN ('live', 'partial', 'dead', 'unproven')", name=conv("ck_verifications_status")),
        _refers("verifications", "mapping_id", "mappings", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=conv("pk_verifications")),
        sa.UniqueConstraint("mapping_id", "library_version", name=conv("uq_verifications_mapping_id_library_version")),
    ),
    "constants": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("conditional", sa.Text(), nullable=False),
        _refers("constants", "source_id", "sources"),
        sa.PrimaryKeyConstraint("id", name=conv("pk_constants")),
        sa.UniqueConstraint("source_id", "name", name=conv("uq_constants_source_id_name")),
    ),
    "serial": (
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=conv("ck_serial_single_row")),
        sa.PrimaryKeyConstraint("id", name=conv("pk_serial")),
    ),
}
"""Columns and constraints by table; a table stands after those it refers to."""


def upgrade() -> None:
    """Make every table, and the one row of ``serial``."""
    for name, items in TABLES.items():
        op.create_table(name, *items)
    op.create_index(op.f("ix_architectures_fingerprint"), "architectures", ["fingerprint"])
    serial = sa.table("serial", sa.column("id", sa.Integer), sa.column("value", sa.Integer))
    op.bulk_insert(serial, [{"id": 1, "value": 0}])


def downgrade() -> None:
    """Drop every table, those that refer to others first."""
    op.drop_index(op.f("ix_architectures_fingerprint"), table_name="architectures")
    for table in reversed(TABLES):
        op.drop_table(table)
