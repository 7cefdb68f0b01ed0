"""Add the range of library versions of a mapping, and the renames of layers between versions."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"

_FILL = """
UPDATE mappings SET {column} = (SELECT a.library_version FROM architectures a WHERE a.id = mappings.architecture_id)
WHERE source_kind = 'scanner'
"""


def upgrade() -> None:
    """Add both; an earlier proposal of the scanner holds for the version scanned last, other mappings have no range."""
    with op.batch_alter_table("mappings") as table:
        table.add_column(sa.Column("since", sa.String(64)))
        table.add_column(sa.Column("until", sa.String(64)))
    for column in ("since", "until"):
        op.execute(_FILL.format(column=column))
    op.create_table(
        "renames",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(64), nullable=False) for name in ("from_version", "to_version")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("old", "new", "says")),
        sa.ForeignKeyConstraint(
            ["architecture_id"],
            ["architectures.id"],
            name=op.f("fk_renames_architecture_id_architectures"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_renames")),
        sa.UniqueConstraint(
            *("architecture_id", "from_version", "to_version", "old", "new"), name=op.f("uq_renames_edge")
        ),
    )


def downgrade() -> None:
    """Drop the columns and the table."""
    op.drop_table("renames")
    for column in ("until", "since"):
        op.drop_column("mappings", column)
