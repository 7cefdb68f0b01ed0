"""Add the state of a mirror: the key it trusts, and the snapshot that was loaded last."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import conv  # marks a name as final, as ``op.f`` does in a running migration

revision: str = "0013"
down_revision: str | None = "0012"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "mirror",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("issued", sa.String(32), nullable=False),
        sa.Column("expires", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("loaded_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_mirror")),
        sa.CheckConstraint("id = 1", name=conv("ck_mirror_single_row")),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("mirror")
