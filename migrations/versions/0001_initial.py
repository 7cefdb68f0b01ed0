"""Make the first tables: architectures, slots, mappings, verifications, PEFT's constants, the serial."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Make every table, and the one row of ``serial``."""
    _make_sources()
    _make_architectures()
    _make_slots()
    _make_mappings()
    _make_verifications()
    _make_constants()
    _make_serial()


def downgrade() -> None:
    """Drop every table, those that refer to others first."""
    for table in ("serial", "constants", "verifications", "mappings", "slots"):
        op.drop_table(table)
    op.drop_index(op.f("ix_architectures_fingerprint"), table_name="architectures")
    op.drop_table("architectures")
    op.drop_table("sources")


def _make_sources() -> None:
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.CheckConstraint("kind IN ('community', 'peft', 'scanner')", name=op.f("ck_sources_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("kind", "version", name=op.f("uq_sources_kind_version")),
    )


def _make_architectures() -> None:
    op.create_table(
        "architectures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("library", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("class_name", sa.String(255)),
        sa.Column("library_version", sa.String(64)),
        sa.Column("fingerprint", sa.String(71)),
        sa.Column("method", sa.String(16)),
        sa.Column("towers", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_architectures")),
        sa.UniqueConstraint("library", "name", name=op.f("uq_architectures_library_name")),
    )
    op.create_index(op.f("ix_architectures_fingerprint"), "architectures", ["fingerprint"])


def _make_slots() -> None:
    op.create_table(
        "slots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tower", sa.String(16), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["architecture_id"],
            ["architectures.id"],
            name=op.f("fk_slots_architecture_id_architectures"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slots")),
        sa.UniqueConstraint("architecture_id", "position", name=op.f("uq_slots_architecture_id_position")),
    )


def _make_mappings() -> None:
    unique = ("architecture_id", "peft_type", "preset", "source_kind", "revision")
    op.create_table(
        "mappings",
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
        sa.CheckConstraint("revision >= 1", name=op.f("ck_mappings_revision")),
        _refers("mappings", "architecture_id", "architectures"),
        _refers("mappings", "source_id", "sources"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mappings")),
        sa.UniqueConstraint(*unique, name=op.f("uq_mappings_revision")),
    )


def _make_verifications() -> None:
    statuses = "status IN ('live', 'partial', 'dead', 'unproven')"
    op.create_table(
        "verifications",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mapping_id", sa.String(71), nullable=False),
        sa.Column("library_version", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("reached", sa.Float(), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.CheckConstraint(statuses, name=op.f("ck_verifications_status")),
        sa.ForeignKeyConstraint(
            ["mapping_id"],
            ["mappings.id"],
            name=op.f("fk_verifications_mapping_id_mappings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verifications")),
        sa.UniqueConstraint("mapping_id", "library_version", name=op.f("uq_verifications_mapping_id_library_version")),
    )


def _make_constants() -> None:
    op.create_table(
        "constants",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("conditional", sa.Text(), nullable=False),
        _refers("constants", "source_id", "sources"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_constants")),
        sa.UniqueConstraint("source_id", "name", name=op.f("uq_constants_source_id_name")),
    )


def _make_serial() -> None:
    table = op.create_table(
        "serial",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_serial_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_serial")),
    )
    op.bulk_insert(table, [{"id": 1, "value": 0}])


def _refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}_{other}"))
