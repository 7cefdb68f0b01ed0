"""Keep what an architecture is built like whatever its layers are called, so that a renamed copy finds it."""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    """Add the column, empty: what was scanned before had no such digest."""
    op.add_column("architectures", sa.Column("structure", sa.String(71)))
    op.create_index(op.f("ix_architectures_structure"), "architectures", ["structure"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index(op.f("ix_architectures_structure"), table_name="architectures")
    op.drop_column("architectures", "structure")
