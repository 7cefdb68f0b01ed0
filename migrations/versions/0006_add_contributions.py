"""Add tokens, submissions with their reviews, and the log of changes."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import conv  # marks a name as final, as ``op.f`` does in a running migration

revision: str = "0006"
down_revision: str | None = "0005"

_STATUSES = "'checking', 'needs_review', 'failed', 'approved', 'rejected', 'published', 'withdrawn'"

TABLES: dict[str, tuple[sa.schema.SchemaItem, ...]] = {
    "tokens": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32)),
        sa.Column("revoked_at", sa.String(32)),
        sa.Column("last_used_at", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name=conv("pk_tokens")),
        sa.UniqueConstraint("hash", name=conv("uq_tokens_hash")),
        sa.CheckConstraint("role IN ('contributor', 'reviewer', 'admin')", name=conv("ck_tokens_role")),
    ),
    "submissions": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("library", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("peft_type", sa.String(64), nullable=False),
        sa.Column("preset", sa.String(32), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("layers", sa.Text()),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("submitter", sa.String(64), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("evidence", sa.Text()),
        sa.Column("mapping_id", sa.String(71)),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("claimed_until", sa.String(32)),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_submissions")),
        sa.ForeignKeyConstraint(["mapping_id"], ["mappings.id"], name=conv("fk_submissions_mapping_id_mappings")),
        sa.CheckConstraint(f"status IN ({_STATUSES})", name=conv("ck_submissions_status")),
        sa.CheckConstraint("origin IN ('contributor', 'drift')", name=conv("ck_submissions_origin")),
    ),
    "reviews": (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=conv("pk_reviews")),
        sa.ForeignKeyConstraint(
            ["submission_id"], ["submissions.id"], name=conv("fk_reviews_submission_id_submissions")
        ),
        sa.CheckConstraint("decision IN ('approve', 'reject')", name=conv("ck_reviews_decision")),
    ),
    "idempotency_keys": (
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request", sa.String(71), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name=conv("pk_idempotency_keys")),
    ),
    "changes": (
        sa.Column("serial", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(71), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=conv("pk_changes")),
        sa.UniqueConstraint("digest", name=conv("uq_changes_digest")),
    ),
    "change_subjects": (
        sa.Column("subject", sa.String(320), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "serial", name=conv("pk_change_subjects")),
        sa.ForeignKeyConstraint(["serial"], ["changes.serial"], name=conv("fk_change_subjects_serial_changes")),
    ),
}
"""Columns and constraints by table; a table stands after those it refers to."""

INDEXES = (("submissions", "digest"), ("submissions", "status"), ("reviews", "submission_id"))


def upgrade() -> None:
    """Add the tables; the log of a registry that is in use already starts at its serial."""
    op.add_column("mappings", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    for name, items in TABLES.items():
        op.create_table(name, *items)
    for name, column in INDEXES:
        op.create_index(op.f(f"ix_{name}_{column}"), name, [column])
    if not context.is_offline_mode():
        from loradar.registry.db.audit_log import start_log  # noqa: PLC0415 - offline, nothing is there to log

        start_log(op.get_bind())


def downgrade() -> None:
    """Drop the tables and the column."""
    for name in reversed(TABLES):
        op.drop_table(name)
    op.drop_column("mappings", "version")
