"""Add a digest of an architecture's structure without its names, to find renamed copies by."""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    """Add the column with its index; it stays empty for earlier scans."""
    op.add_column("architectures", sa.Column("structure", sa.String(71)))
    op.create_index(op.f("ix_architectures_structure"), "architectures", ["structure"])


def downgrade() -> None:
    """Drop the column and its index."""
    op.drop_index(op.f("ix_architectures_structure"), table_name="architectures")
    op.drop_column("architectures", "structure")
