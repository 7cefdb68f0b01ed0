"""Look up a mapping in an SQLite file with the standard library: importing SQLAlchemy takes most of a lookup's time.

``lookup`` alone bypasses ``Registry``, and leaves every unusual case to it. A test compares the queries here with those
that SQLAlchemy compiles.
"""

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ..domain.mappings import Mapping
from ..domain.methods import get_method
from ..domain.vocabulary import PRESETS
from ..settings import Settings
from .db import HEAD
from .db.encoding import MappingKey
from .mappings.precedence import best_for, stored_under, to_mapping
from .seed.seed_files import seed_digest
from .versions.ranges import nearest_seen, with_distance
from .versions.renames import is_stale

_FILE_URL = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?%]+)")
"""URLs of plain SQLite files; SQLAlchemy parses all others."""

_IS_READY = "SELECT 1 FROM alembic_version, seeds WHERE version_num = :head AND digest = :digest"

MAPPINGS = """
SELECT architectures.library, architectures.name, mappings.id, mappings.peft_type, mappings.preset, mappings.revision,
    mappings.spec, mappings.matched, mappings.per_rank, mappings.fixed, mappings.coverage, mappings.reasons,
    mappings.since, mappings.until, architectures.prompt_facts, sources.kind, sources.version, verifications.status,
    verifications.library_version, verifications.counts, verifications.reached, verifications.findings
FROM mappings
JOIN architectures ON architectures.id = mappings.architecture_id
JOIN sources ON sources.id = mappings.source_id
LEFT OUTER JOIN verifications ON verifications.id = coalesce((SELECT others.id
    FROM verifications AS others
    WHERE others.mapping_id = mappings.id
    AND others.library_version = coalesce(CAST(:library_version AS VARCHAR(64)), architectures.library_version)),
    (SELECT others.id
    FROM verifications AS others
    WHERE others.mapping_id = mappings.id AND CAST(:library_version AS VARCHAR(64)) IS NULL
    ORDER BY others.serial DESC, others.id DESC
    LIMIT 1 OFFSET 0))
WHERE mappings.yanked_at IS NULL AND architectures.library = :library AND architectures.name = :name
AND mappings.peft_type IN (:peft_type, :family) AND mappings.preset = :preset
"""
"""``resolve.LOOKUP`` as text."""

VERSIONS = """
SELECT DISTINCT verifications.library_version
FROM verifications
JOIN mappings ON mappings.id = verifications.mapping_id
JOIN architectures ON architectures.id = mappings.architecture_id
WHERE architectures.library = :library AND architectures.name = :name
"""
"""``stored_names.SEEN_VERSIONS`` as text."""


def lookup(
    name: str,
    peft_type: str = "LORA",
    preset: str = "default",
    library: str = "transformers",
    library_version: str | None = None,
) -> Mapping:
    """Look up the mapping of an architecture in the user's registry, which is created and seeded on first use.

    Raises:
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If there is no such preset.
        NotRegistered: If nothing is registered; the message lists similar names and the scan command.
        DatabaseUnusable: If the registry's database cannot be used.
    """
    settings = Settings.from_environment()
    file = _FILE_URL.fullmatch(settings.database_url)
    if file and preset in PRESETS:
        # The registry explains failures of any kind better, and can repair some.
        with suppress(OSError, sqlite3.Error):
            key = MappingKey(library, name, peft_type.upper(), preset)
            mapping = _find_in_file(Path(file[1]).absolute(), key, library_version)
            if mapping:
                return mapping
    from .registry import Registry  # noqa: PLC0415 - SQLAlchemy, 0.3 s

    with Registry.open(settings) as registry:
        return registry.lookup(name, peft_type, preset, library, library_version)


def _find_in_file(path: Path, key: MappingKey, library_version: str | None) -> Mapping | None:
    """Return the mapping that ``resolve.find_mapping`` would, or ``None`` if it takes more than these two queries."""
    method = get_method(key.peft_type)
    values = {**key._asdict(), "family": stored_under(method)}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        if not connection.execute(_IS_READY, {"head": HEAD, "digest": seed_digest()}).fetchone():
            return None
        seen = [row["library_version"] for row in connection.execute(VERSIONS, values)] if library_version else []
        version = nearest_seen(library_version, seen)
        rows = connection.execute(MAPPINGS, {**values, "library_version": version}).fetchall()
    found = best_for(method, map(to_mapping, map(dict, rows)), version)
    return with_distance(found, library_version, seen) if found and not is_stale(found) else None
