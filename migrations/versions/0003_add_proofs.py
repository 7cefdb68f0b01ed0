"""Add the proofs of slots, the coverage of mappings, and a table of the seeds loaded."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"

_ADDED = (
    ("mappings", "coverage"),
    ("mappings", "fixed"),
    ("mappings", "per_rank"),
    ("verifications", "findings"),
    ("slots", "proof"),
    ("slots", "live"),
    ("slots", "kernel"),
    ("architectures", "prompt_facts"),
    ("architectures", "proof"),
)


def upgrade() -> None:
    """Add the columns, empty for earlier scans: those proved nothing, and a size at rank 8 cannot be split."""
    with op.batch_alter_table("architectures") as table:
        table.add_column(sa.Column("proof", sa.Text()))
        table.add_column(sa.Column("prompt_facts", sa.Text()))
    with op.batch_alter_table("slots") as table:
        table.add_column(sa.Column("kernel", sa.String(255)))
        table.add_column(sa.Column("live", sa.Boolean()))
        table.add_column(sa.Column("proof", sa.Text()))
    with op.batch_alter_table("verifications") as table:
        table.add_column(sa.Column("findings", sa.Text(), nullable=False, server_default="[]"))
    with op.batch_alter_table("mappings") as table:
        table.add_column(sa.Column("per_rank", sa.BigInteger()))
        table.add_column(sa.Column("fixed", sa.BigInteger()))
        table.add_column(sa.Column("coverage", sa.Text(), nullable=False, server_default="[]"))
    op.create_table(
        "seeds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("loradar", sa.String(64), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seeds")),
        sa.UniqueConstraint("digest", name=op.f("uq_seeds_digest")),
    )
    op.drop_column("mappings", "trainable")  # no batch: SQLite would have to see the table, which offline it cannot


def downgrade() -> None:
    """Put the size at rank 8 back, and drop the rest."""
    op.drop_table("seeds")
    op.add_column("mappings", sa.Column("trainable", sa.BigInteger()))
    op.execute("UPDATE mappings SET trainable = 8 * per_rank + fixed")
    for table, column in _ADDED:
        op.drop_column(table, column)
