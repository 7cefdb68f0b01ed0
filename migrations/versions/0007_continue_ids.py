"""Continue the ids of submissions, reviews and tokens where the rows end, so that PostgreSQL can assign them.

Until now loradar chose the ids, which left the sequences of PostgreSQL at 1. SQLite continues by itself.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"

TABLES = ("submissions", "reviews", "tokens")


def upgrade() -> None:
    """Set each sequence to the largest id."""
    if op.get_context().dialect.name != "postgresql":
        return
    for name in TABLES:
        table = sa.table(name, sa.column("id"))
        largest = sa.func.coalesce(sa.func.max(table.c.id), 0) + 1
        op.execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence(name, "id"), largest, sa.false())))


def downgrade() -> None:
    """Keep the sequences: nothing older reads them."""
