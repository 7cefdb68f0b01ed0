"""Add the blocks of a slot whose layers differ by their place in a stack: the last one, every second one."""

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    """Add the column; it stays empty for earlier scans."""
    op.add_column("slots", sa.Column("blocks", sa.String(64)))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("slots", "blocks")
