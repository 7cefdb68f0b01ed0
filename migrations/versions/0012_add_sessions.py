"""Add the sessions of people who sign in to the pages with a token."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import conv  # marks a name as final, as ``op.f`` does in a running migration

revision: str = "0012"
down_revision: str | None = "0011"


def upgrade() -> None:
    """Add the table and its index."""
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=conv("pk_sessions")),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name=conv("fk_sessions_token_id_tokens"), ondelete="CASCADE"
        ),
    )
    op.create_index(op.f("ix_sessions_token_id"), "sessions", ["token_id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("sessions")
