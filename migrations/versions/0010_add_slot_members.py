"""Add the members of a slot: its layers one by one, with their sizes, which budgets and selected blocks count with."""

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    """Add the column; it stays empty for earlier scans."""
    op.add_column("slots", sa.Column("members", sa.Text))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("slots", "members")
