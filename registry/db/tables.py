"""Define the tables, as SQLAlchemy Core.

Core and not the ORM: rows become the frozen records of ``domain`` at once, so mapped classes would duplicate them, and
``sqlalchemy.orm`` costs another 0.1 s to import. Target specs, counts and reasons are canonical JSON text: the hash
over a spec identifies a mapping, so its bytes must not depend on the database.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

# Names from the first revision on: SQLite can drop a constraint only by its name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

sources = Table(
    "sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("version", String(64), nullable=False),
    UniqueConstraint("kind", "version"),
    CheckConstraint("kind IN ('community', 'peft', 'scanner')", name="kind"),
)

architectures = Table(
    "architectures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("library", String(32), nullable=False),
    Column("name", String(255), nullable=False),
    Column("class_name", String(255)),
    Column("library_version", String(64)),
    Column("fingerprint", String(71), index=True),
    Column("structure", String(71), index=True),
    Column("method", String(16)),
    Column("proof", Text),
    # What a lookup reads of an architecture beside its mappings: the facts of prompt learning, and its parts if any.
    Column("prompt_facts", Text),
    Column("towers", Text, nullable=False, server_default="{}"),
    UniqueConstraint("library", "name"),
)

slots = Table(
    "slots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("architecture_id", ForeignKey(architectures.c.id, ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("tower", String(16), nullable=False),
    Column("role", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("pattern", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("layout", String(16)),
    Column("bypassed", String(255)),
    Column("kernel", String(255)),
    Column("live", Boolean),
    Column("proof", Text),
    Column("blocks", String(64)),
    Column("per_rank", BigInteger),
    Column("members", Text),
    UniqueConstraint("architecture_id", "position"),
)

mappings = Table(
    "mappings",
    metadata,
    Column("id", String(71), primary_key=True),
    Column("architecture_id", ForeignKey(architectures.c.id), nullable=False),
    Column("source_id", ForeignKey(sources.c.id), nullable=False),
    # Repeats the source's kind, because revisions are counted per kind and a constraint cannot look it up.
    Column("source_kind", String(16), nullable=False),
    Column("peft_type", String(64), nullable=False),
    Column("preset", String(32), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("matched", Integer),
    Column("per_rank", BigInteger),
    Column("fixed", BigInteger),
    Column("coverage", Text, nullable=False, server_default="[]"),
    Column("reasons", Text, nullable=False),
    Column("since", String(64)),
    Column("until", String(64)),
    Column("serial", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("yanked_at", DateTime(timezone=True)),
    Column("yank_reason", Text),
    # Counts the times it was yanked or restored, from 1.
    Column("version", Integer, nullable=False, server_default="1"),
    UniqueConstraint("architecture_id", "peft_type", "preset", "source_kind", "revision", name="uq_mappings_revision"),
    CheckConstraint("revision >= 1", name="revision"),
)

verifications = Table(
    "verifications",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("mapping_id", ForeignKey(mappings.c.id, ondelete="CASCADE"), nullable=False),
    Column("library_version", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("counts", Text, nullable=False),
    Column("reached", Float, nullable=False),
    Column("findings", Text, nullable=False, server_default="[]"),
    Column("serial", Integer, nullable=False),
    UniqueConstraint("mapping_id", "library_version"),
    CheckConstraint("status IN ('live', 'partial', 'dead', 'unproven')", name="status"),
)

renames = Table(
    "renames",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("architecture_id", ForeignKey(architectures.c.id, ondelete="CASCADE"), nullable=False),
    Column("from_version", String(64), nullable=False),
    Column("to_version", String(64), nullable=False),
    Column("old", Text, nullable=False),
    Column("new", Text, nullable=False),
    Column("says", Text, nullable=False),
    UniqueConstraint("architecture_id", "from_version", "to_version", "old", "new", name="uq_renames_edge"),
)

constants = Table(
    "constants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source_id", ForeignKey(sources.c.id), nullable=False),
    Column("name", String(255), nullable=False),
    Column("value", Text, nullable=False),
    Column("conditional", Text, nullable=False),
    UniqueConstraint("source_id", "name"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("prefix", String(16), nullable=False),
    # SHA-256 without salt: the secret has 256 random bits, which cannot be guessed from a digest.
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_by", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32)),
    Column("revoked_at", String(32)),
    Column("last_used_at", String(32)),
    CheckConstraint("role IN ('contributor', 'reviewer', 'admin')", name="role"),
)

# The people signed in to the pages, each by a cookie whose secret is stored as that of a token is.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("token_id", ForeignKey(tokens.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("expires_at", String(32), nullable=False),
)

submissions = Table(
    "submissions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("library", String(32), nullable=False),
    Column("name", String(255), nullable=False),
    Column("peft_type", String(64), nullable=False),
    Column("preset", String(32), nullable=False),
    Column("statement", Text, nullable=False),
    Column("layers", Text),
    Column("digest", String(71), nullable=False, index=True),
    Column("submitter", String(64), nullable=False),
    Column("origin", String(16), nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("reason", Text),
    Column("evidence", Text),
    Column("mapping_id", ForeignKey(mappings.c.id)),
    Column("version", Integer, nullable=False),
    # The lease of a worker, and the number of leases so far: a worker that dies must not keep a submission.
    Column("claimed_until", String(32)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    CheckConstraint(
        "status IN ('checking', 'needs_review', 'failed', 'approved', 'rejected', 'published', 'withdrawn')",
        name="status",
    ),
    CheckConstraint("origin IN ('contributor', 'drift')", name="origin"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("submission_id", ForeignKey(submissions.c.id), nullable=False, index=True),
    Column("reviewer", String(64), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("comment", Text, nullable=False),
    Column("at", String(32), nullable=False),
    CheckConstraint("decision IN ('approve', 'reject')", name="decision"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("actor", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request", String(71), nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", String(71), nullable=False),
    Column("digest", String(71), nullable=False, unique=True),
)

# An index of the subjects that the details of a change name.
change_subjects = Table(
    "change_subjects",
    metadata,
    Column("subject", String(320), primary_key=True),
    Column("serial", ForeignKey(changes.c.serial), primary_key=True),
)

# One row for each structure of an architecture; numbers of repos and examples are read from the repos.
crawled_structures = Table(
    "crawled_structures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("library", String(32), nullable=False),
    Column("name", String(255), nullable=False),
    # Empty for none: a unique constraint takes nulls for different.
    Column("class_name", String(255), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("layers", Text, nullable=False),
    UniqueConstraint("library", "name", "class_name", "digest"),
)

crawled_repos = Table(
    "crawled_repos",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("commit", String(64)),
    Column("modified", String(32)),
    Column("outcome", String(16), nullable=False),
    Column("message", Text),
    Column("requests", Integer, nullable=False),
    Column("transferred", BigInteger, nullable=False),
    UniqueConstraint("endpoint", "name"),
)

crawled_models = Table(
    "crawled_models",
    metadata,
    Column("repo_id", ForeignKey(crawled_repos.c.id, ondelete="CASCADE"), primary_key=True),
    Column("part", String(255), primary_key=True),
    Column("structure_id", ForeignKey(crawled_structures.c.id), nullable=False, index=True),
)

crawled_adapters = Table(
    "crawled_adapters",
    metadata,
    Column("repo_id", ForeignKey(crawled_repos.c.id, ondelete="CASCADE"), primary_key=True),
    Column("base", String(255), index=True),
    # The architecture that the base is known for offline: it may be gated, or not visited yet.
    Column("library", String(32)),
    Column("name", String(255)),
    Column("peft_type", String(64), nullable=False),
    Column("targets", Text, nullable=False),
    Index(None, "library", "name"),
)

# One row in a registry that mirrors another: what a snapshot has to be signed with, and newer than.
mirror = Table(
    "mirror",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), nullable=False),
    Column("issued", String(32), nullable=False),
    Column("expires", String(32), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("loaded_at", String(32), nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)

seeds = Table(
    "seeds",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(71), nullable=False, unique=True),
    Column("loradar", String(64), nullable=False),
    Column("serial", Integer, nullable=False),
)

serial = Table(
    "serial",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", Integer, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)
