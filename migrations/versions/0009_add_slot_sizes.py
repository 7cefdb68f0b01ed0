"""Add the size of a slot: the parameters that each rank of LoRA adds on its layers, which selections count with."""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"


def upgrade() -> None:
    """Add the column; it stays empty for earlier scans."""
    op.add_column("slots", sa.Column("per_rank", sa.BigInteger))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("slots", "per_rank")
