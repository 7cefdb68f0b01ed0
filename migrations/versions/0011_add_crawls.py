"""Add what crawls found: the repos of hubs, the structures of their models, and the targets of their adapters."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import conv  # marks a name as final, as ``op.f`` does in a running migration

revision: str = "0011"
down_revision: str | None = "0010"

TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "crawled_structures": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("library", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("class_name", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("layers", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_crawled_structures")),
        sa.UniqueConstraint(
            "library", "name", "class_name", "digest", name=conv("uq_crawled_structures_library_name_class_name_digest")
        ),
    ),
    "crawled_repos": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("commit", sa.String(64)),
        sa.Column("modified", sa.String(32)),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("message", sa.Text()),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("transferred", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_crawled_repos")),
        sa.UniqueConstraint("endpoint", "name", name=conv("uq_crawled_repos_endpoint_name")),
    ),
    "crawled_models": (
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("part", sa.String(255), nullable=False),
        sa.Column("structure_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("repo_id", "part", name=conv("pk_crawled_models")),
        sa.ForeignKeyConstraint(
            ["repo_id"], ["crawled_repos.id"], name=conv("fk_crawled_models_repo_id_crawled_repos"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["structure_id"],
            ["crawled_structures.id"],
            name=conv("fk_crawled_models_structure_id_crawled_structures"),
        ),
    ),
    "crawled_adapters": (
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("base", sa.String(255)),
        sa.Column("library", sa.String(32)),
        sa.Column("name", sa.String(255)),
        sa.Column("peft_type", sa.String(64), nullable=False),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("repo_id", name=conv("pk_crawled_adapters")),
        sa.ForeignKeyConstraint(
            ["repo_id"],
            ["crawled_repos.id"],
            name=conv("fk_crawled_adapters_repo_id_crawled_repos"),
            ondelete="CASCADE",
        ),
    ),
}
"""Columns and constraints by table; a table stands after those it refers to."""

INDEXES = (
    ("crawled_models", ("structure_id",)),
    ("crawled_adapters", ("base",)),
    ("crawled_adapters", ("library", "name")),
)


def upgrade() -> None:
    """Add the tables and their indexes."""
    for name, items in TABLES.items():
        op.create_table(name, *items)
    for name, columns in INDEXES:
        op.create_index(op.f(f"ix_{name}_{'_'.join(columns)}"), name, [*columns])


def downgrade() -> None:
    """Drop the tables."""
    for name in reversed(TABLES):
        op.drop_table(name)
