"""Look up a mapping in an SQLite file with the standard library: importing SQLAlchemy takes most of a lookup's time.

Every unusual case is left to SQLAlchemy: ``SqliteLookup.find`` then returns ``None``. A test compares the queries here
with those that SQLAlchemy compiles.
"""

import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..catalog.layer_names import find_history
from ..domain.mappings import Mapping
from ..domain.methods import get_method
from .catalogs import seed_digest
from .db import HEAD
from .db.encoding import MappingKey
from .db.shipped import uri_of
from .mappings.completion import Record
from .mappings.precedence import find_answer, of_preset, stored_under, to_mapping
from .mappings.ranges import Place, locate
from .mappings.renames import is_stale

_IS_READY = """
SELECT 1 FROM alembic_version
WHERE version_num = :head AND (EXISTS (SELECT 1 FROM seeds WHERE digest = :digest) OR EXISTS (SELECT 1 FROM mirror))
"""

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
AND mappings.peft_type IN (:peft_type, :family)
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


RECORD = """
SELECT architectures.class_name, slots.tower, slots.role, slots.kind, slots.pattern, slots.count, slots.layout,
    slots.bypassed, slots.kernel, slots.live, slots.proof, slots.blocks, slots.per_rank,
    slots.members
FROM slots
JOIN architectures ON architectures.id = slots.architecture_id
WHERE architectures.library = :library AND architectures.name = :name
ORDER BY slots.position
"""
"""``stored_names.RECORD`` as text."""


STATE = "SELECT value, (SELECT digest FROM changes ORDER BY serial DESC LIMIT 1) FROM serial"
REFERENCES = "SELECT library || ':' || name FROM architectures"
MOST_ANSWERS = 64
"""Answers that are kept, tens of KiB each; the service and ``loradar.lookup`` keep what they made of them besides."""


class SqliteLookup:
    """Find mappings in one SQLite file; threads may share it.

    Args:
        file: The file.
        is_shipped: Whether it is the packaged registry, which nobody writes.
    """

    def __init__(self, file: Path, *, is_shipped: bool = False) -> None:
        self._file = file
        self._uri = uri_of(file) if is_shipped else f"{file.as_uri()}?mode=ro"
        self._idle: deque[tuple[tuple[int, int], sqlite3.Connection]] = deque()
        self._state: tuple[int, int, str | None] | None = None
        self._answers: dict[tuple[MappingKey, str | None], Mapping | None] = {}
        self._last = _Architecture("", "")

    def is_ready(self) -> bool:
        """Return whether the file is a registry that needs neither migration nor seed."""
        with suppress(OSError, sqlite3.Error), self._connect() as connection:
            return bool(connection.execute(_IS_READY, {"head": HEAD, "digest": seed_digest()}).fetchone())
        return False

    def find(self, key: MappingKey, library_version: str | None) -> Mapping | None:
        """Return the mapping of ``resolve.find_mapping``, or ``None`` if the queries here are not enough.

        Answers, and the rows of the last architecture, are kept until the registry changes: completing an answer takes
        longer than all of its queries.
        """
        try:
            with self._connect() as connection:
                state = (self._file.stat().st_ino, *connection.execute(STATE).fetchone())
                if state != self._state or len(self._answers) > MOST_ANSWERS:
                    self._state, self._answers, self._last = state, {}, _Architecture("", "")
                answers, last = self._answers, self._last
                if (key, library_version) not in answers:
                    if (last.library, last.name) != (key.library, key.name):
                        last = self._last = _Architecture(key.library, key.name)
                    answers[key, library_version] = _find(connection, last, key, library_version)
                return answers[key, library_version]
        except (OSError, sqlite3.Error):
            return None

    def list_references(self) -> list[str]:
        """Return the references of all architectures, sorted as they are stored.

        Raises:
            sqlite3.Error: If the file cannot be read.
        """
        with self._connect() as connection:
            return [row[0] for row in connection.execute(REFERENCES)]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Lend an idle connection, or a new one if there is none or the file was replaced; close it after an error."""
        status = self._file.stat()
        identity = status.st_dev, status.st_ino
        connection = None
        with suppress(IndexError):
            opened, connection = self._idle.pop()
            if opened != identity:
                connection.close()
                connection = None
        if connection is None:
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
            connection.row_factory = sqlite3.Row
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append((identity, connection))

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop()[1].close()


class _Architecture:
    """Read the rows of one architecture once: all its presets and methods are often looked up one after the other."""

    def __init__(self, library: str, name: str) -> None:
        self.library, self.name = library, name
        self._mappings: dict[tuple[str, str | None], list[Mapping]] = {}
        self._record: Record | None = None

    def read_mappings(
        self, connection: sqlite3.Connection, values: dict[str, str], version: str | None
    ) -> list[Mapping]:
        """Return the mappings for a method and its family, of every preset, verified for a version."""
        at = (values["peft_type"], version)
        if at not in self._mappings:
            rows = connection.execute(MAPPINGS, {**values, "library_version": version}).fetchall()
            self._mappings[at] = [*map(to_mapping, map(dict, rows))]
        return self._mappings[at]

    def make_record(
        self, connection: sqlite3.Connection, values: dict[str, str], mappings: Sequence[Mapping]
    ) -> Record:
        """Return the record of the architecture with some of its mappings."""
        if self._record is None:
            self._record = Record.of_rows((), map(dict, connection.execute(RECORD, values).fetchall()))
        return replace(self._record, mappings=mappings)


def _find(
    connection: sqlite3.Connection, architecture: _Architecture, key: MappingKey, library_version: str | None
) -> Mapping | None:
    method = get_method(key.peft_type)
    values = {**key._asdict(), "family": stored_under(method)}
    stale: list[Mapping] = []
    candidates: list[Mapping] = []

    def note(mapping: Mapping) -> Mapping:
        stale.extend([mapping] if is_stale(mapping) else ())
        return mapping

    place = Place(None)
    if library_version:
        seen = [row[0] for row in connection.execute(VERSIONS, values)]
        place = locate(library_version, seen, find_history(key.library, key.name))

    def read(version: str | None) -> list[Mapping]:
        own = architecture.read_mappings(connection, values, version)
        candidates.extend(own)
        return of_preset(own, key.preset)

    found = find_answer(method, place, read, note)
    if stale or found is None:
        return None
    return architecture.make_record(connection, values, candidates).complete(found)
