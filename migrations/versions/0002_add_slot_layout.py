"""Add the layout of a slot's weight, and the place that reads it without calling the layer."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add the two columns; they stay empty for earlier scans, which traced no forward."""
    with op.batch_alter_table("slots") as table:
        table.add_column(sa.Column("layout", sa.String(16)))
        table.add_column(sa.Column("bypassed", sa.String(255)))


def downgrade() -> None:
    """Drop the columns."""
    for column in ("bypassed", "layout"):
        op.drop_column("slots", column)
