"""Keep what people contribute: tokens, submissions with their reviews, and a log of every change."""

import sqlalchemy as sa
from alembic import context, op

revision: str = "0006"
down_revision: str | None = "0005"

TABLES = ("change_subjects", "changes", "idempotency_keys", "reviews", "submissions", "tokens")


def upgrade() -> None:
    """Add the tables; the log of a registry that is in use already starts at its serial."""
    op.add_column("mappings", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    _create_tokens()
    _create_submissions()
    _create_log()
    if not context.is_offline_mode():
        _start_log()


def _create_tokens() -> None:
    op.create_table(
        "tokens",
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
        sa.CheckConstraint("role IN ('contributor', 'reviewer', 'admin')", name=op.f("ck_tokens_role")),
    )


def _create_submissions() -> None:
    statuses = "'checking', 'needs_review', 'failed', 'approved', 'rejected', 'published', 'withdrawn'"
    op.create_table(
        "submissions",
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.ForeignKeyConstraint(["mapping_id"], ["mappings.id"], name=op.f("fk_submissions_mapping_id_mappings")),
        sa.CheckConstraint(f"status IN ({statuses})", name=op.f("ck_submissions_status")),
        sa.CheckConstraint("origin IN ('contributor', 'drift')", name=op.f("ck_submissions_origin")),
    )
    op.create_index(op.f("ix_submissions_digest"), "submissions", ["digest"])
    op.create_index(op.f("ix_submissions_status"), "submissions", ["status"])
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.ForeignKeyConstraint(
            ["submission_id"], ["submissions.id"], name=op.f("fk_reviews_submission_id_submissions")
        ),
        sa.CheckConstraint("decision IN ('approve', 'reject')", name=op.f("ck_reviews_decision")),
    )
    op.create_index(op.f("ix_reviews_submission_id"), "reviews", ["submission_id"])


def _create_log() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request", sa.String(71), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "changes",
        sa.Column("serial", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(71), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_changes")),
        sa.UniqueConstraint("digest", name=op.f("uq_changes_digest")),
    )
    op.create_table(
        "change_subjects",
        sa.Column("subject", sa.String(320), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "serial", name=op.f("pk_change_subjects")),
        sa.ForeignKeyConstraint(["serial"], ["changes.serial"], name=op.f("fk_change_subjects_serial_changes")),
    )


def _start_log() -> None:
    from loradar.registry.db.audit_log import start_log  # noqa: PLC0415 - offline, nothing is there to log

    start_log(op.get_bind())


def downgrade() -> None:
    """Drop them."""
    for name in TABLES:
        op.drop_table(name)
    op.drop_column("mappings", "version")
