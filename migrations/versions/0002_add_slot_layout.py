"""Keep how a slot's weight is laid out, and where it is read without the layer being called."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add the two columns, empty: what was scanned before was not traced."""
    with op.batch_alter_table("slots") as table:
        table.add_column(sa.Column("layout", sa.String(16)))
        table.add_column(sa.Column("bypassed", sa.String(255)))


def downgrade() -> None:
    """Drop them."""
    for column in ("bypassed", "layout"):
        op.drop_column("slots", column)
