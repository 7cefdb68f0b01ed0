"""The registry as others see it: open, look up, browse, add. Writing imports SQLAlchemy, reading does not."""

import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..domain.architectures import Architecture
from ..domain.mappings import Mapping, Source
from ..domain.scans import Scan
from ..domain.summaries import ArchitectureDetail, ArchitectureSummary, Neighbour
from ..domain.vocabulary import SourceKind
from ..errors import UnknownName
from ..settings import Settings
from .contributions.submissions import Submissions
from .contributions.tokens import Tokens
from .db.canonical import Question
from .db.database import Access
from .db.schema import Reader, find_revision, serial_of, usable_state
from .db.sqlite_reader import SqliteReader
from .db.urls import masked, sqlite_file
from .mappings import listing as browse
from .mappings import not_found as misses
from .mappings import resolve
from .mappings import same_structure as alike
from .mappings.similar import Similarity
from .mappings.yanking import Revisions
from .peft_constants.reading import PeftConstants
from .reads import Reads
from .results import Constant, DatabaseInfo, Outcome, StoreReport
from .verification.audit import Audit, suggestions_on_record

if TYPE_CHECKING:
    from sqlalchemy import Engine

_COUNTED = ("architectures", "slots", "mappings", "verifications", "renames", "constants")


class Registry(Reads):
    """A registry database, opened; also a context manager that closes it.

    Attributes:
        url: SQLAlchemy URL of the database.
        tokens: Who may write.
        submissions: What people contribute.
        revisions: Single revisions of mappings, to yank and to restore.
    """

    def __init__(self, url: str, reader: Reader, engine: "Engine | None" = None) -> None:
        super().__init__(reader)
        self.url = url
        self._access = Access(url, reader, engine)
        self._similarity = Similarity(reader)
        self.tokens = Tokens(self._access)
        self.submissions = Submissions(self._access)
        self.revisions = Revisions(self._access)

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Open the registry; on first use it is created, migrated and seeded.

        Raises:
            DatabaseUnusable: If the database is corrupted, foreign, newer than this version or out of reach;
                it is left as it was found.
            MissingExtra: If the driver for PostgreSQL is not installed.
        """
        url = (settings or Settings.from_environment()).database_url
        path = sqlite_file(url)
        reader = _find_ready(url, path) if path and path.exists() else None
        return cls(url, reader) if reader else cls._prepared(url)

    @classmethod
    def _prepared(cls, url: str) -> Self:
        from .db.engine import EngineReader  # noqa: PLC0415 - SQLAlchemy, 0.3 s
        from .db.prepare import prepare  # noqa: PLC0415

        engine = prepare(url)
        path = sqlite_file(url)
        return cls(url, SqliteReader(path) if path else EngineReader(engine), engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._access.close()

    def serial(self) -> int:
        """Return the number of writes that changed something."""
        return serial_of(self._access.reader)

    def info(self) -> DatabaseInfo:
        """Return the state of the database."""
        rows = self._access.reader.rows
        sources = rows("SELECT kind, version FROM sources ORDER BY kind, version")
        count = "SELECT COUNT(*) AS n FROM "
        return DatabaseInfo(
            url=masked(self.url),
            revision=find_revision(self._access.reader) or "",
            serial=self.serial(),
            counts={table: int(rows(count + table)[0]["n"]) for table in _COUNTED},
            sources=tuple(Source(**row) for row in sources),
        )

    def lookup(
        self,
        name: str,
        peft_type: str = "LORA",
        preset: str = "default",
        library: str = "transformers",
        library_version: str | None = None,
    ) -> Mapping:
        """Return the mapping to use, by precedence.

        What is verified dead or partial for ``library_version`` never wins over what is not. A version never
        seen is answered as of the nearest one that was, with a reason that says so; without a version, the newest
        counts.

        Raises:
            InvalidRequest: If ``library_version`` is no version.
            UnknownPeftType: If PEFT has no such method.
            UnknownPreset: If ``preset`` is no preset.
            MethodDoesNotFit: If the method can adapt nothing of what is registered for its family.
            NotRegistered: If there is no such mapping; says what there is instead, and the scan command.
        """
        found = self.find(name, peft_type, preset, library, library_version)
        if found is None:
            raise misses.unanswered(self._access.reader, Question(library, name, peft_type.upper(), preset))
        return found

    def find(
        self,
        name: str,
        peft_type: str = "LORA",
        preset: str = "default",
        library: str = "transformers",
        library_version: str | None = None,
    ) -> Mapping | None:
        """Return what ``lookup`` would, or ``None`` if nothing is registered.

        Raises:
            UnknownPeftType: As ``lookup``.
            UnknownPreset: As ``lookup``.
        """
        misses.check_preset(preset)
        question = Question(library, name, peft_type.upper(), preset)
        return resolve.find_mapping(self._access.reader, question, library_version)

    def find_by_fingerprint(self, fingerprint: str, peft_type: str = "LORA", preset: str = "default") -> Mapping | None:
        """Return the mapping of an architecture with this structure, or ``None``."""
        misses.check_preset(preset)
        return resolve.find_by_fingerprint(self._access.reader, fingerprint, peft_type, preset)

    def list_by_structure(
        self, structure: str, peft_type: str = "LORA", preset: str = "default"
    ) -> tuple[Mapping, ...]:
        """Return the mapping of each architecture with this structure, whatever its layers are called, best first."""
        misses.check_preset(preset)
        return alike.list_by_structure(self._access.reader, structure, peft_type.upper(), preset)

    def list_alike(self, architecture: Architecture) -> tuple[Architecture, ...]:
        """Return the other architectures with its fingerprint, then those with its structure under other names."""
        return alike.list_alike(self._access.reader, architecture)

    def list_architectures(
        self,
        library: str | None = None,
        q: str = "",
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> tuple[ArchitectureSummary, ...]:
        """Return architectures sorted by library and name, also those known only from PEFT's tables.

        Args:
            library: Only those of this library.
            q: Only those whose name contains this, whatever the case.
            after: Only those beyond this (library, name).
            limit: At most so many.
        """
        return browse.list_architectures(self._access.reader, library, q, after or ("", ""), limit or sys.maxsize)

    def get_architecture(self, library: str, name: str) -> ArchitectureDetail:
        """Return everything known about an architecture.

        Raises:
            UnknownArchitecture: If the registry has never heard of it.
        """
        return browse.get_architecture(self._access.reader, library, name)

    def list_mappings(
        self, library: str, source: SourceKind | None = None, library_version: str | None = None
    ) -> tuple[Mapping, ...]:
        """Return the revision of every mapping of a library that stands at a version, sorted.

        Args:
            library: Whose architectures.
            source: Only those of this kind of source.
            library_version: Each carries its verification for this version, or none; if not given, the newest counts.
        """
        return browse.list_mappings(self._access.reader, library, source, library_version)

    def list_similar(self, library: str, name: str, limit: int = 10) -> tuple[Neighbour, ...]:
        """Return the nearest architectures by what their slots are, nearest first, with what differs in words.

        Those with one fingerprint are told together.

        Raises:
            UnknownArchitecture: If the registry has never heard of it.
            NotRegistered: If it has, but nobody scanned it.
        """
        return self._similarity.list_similar(library, name, limit)

    def constant(self, name: str, version: str | None = None) -> Constant:
        """Return one of PEFT's constants, such as ``SEQ_CLS_HEAD_NAMES``, with the version it is from.

        Raises:
            UnknownName: If PEFT's file has no such constant.
        """
        found = browse.find_constant(self._access.reader, name, version)
        if found is None:
            raise UnknownName(name, browse.list_constants(self._access.reader), version=version)
        return found

    def add_scan(self, scan: Scan) -> StoreReport:
        """Store what a scan found; the same scan a second time changes nothing."""
        from .store import add_scan  # noqa: PLC0415 - SQLAlchemy, 0.3 s

        with self._access.writing("scan.store") as write:
            return add_scan(write, scan)

    def add_constants(self, constants: PeftConstants) -> StoreReport:
        """Store PEFT's tables raw, and their entries as mappings with source ``peft`` at their version."""
        from .store import add_constants  # noqa: PLC0415 - SQLAlchemy, 0.3 s

        with self._access.writing("constants.import") as write:
            return add_constants(write, constants)

    def audit(
        self, mappings: Sequence[Mapping], scans: Iterable[tuple[str, Scan | str]], known: Collection[str]
    ) -> tuple[Outcome, ...]:
        """Check mappings against scans, store each outcome as a verification, and return how every one fared.

        Args:
            mappings: Of one library, with what is on record for the version scanned (``list_mappings``).
            scans: A scan by name, or why there is none; mappings of other names keep what is on record.
            known: Every name the library knows; mappings of others are ``unknown``.
        """
        from .store import put_verification  # noqa: PLC0415 - SQLAlchemy, 0.3 s

        libraries = {mapping.library for mapping in mappings}
        proposed = [mapping for library in libraries for mapping in self.list_mappings(library, "scanner")]
        audit = Audit(known, suggestions_on_record(proposed))
        checks = audit.check(mappings, scans)  # takes minutes: no other writer should wait for it
        with self._access.writing("audit") as write:
            current = [put_verification(write, m, checks[m.id]) if m.id in checks else m for m in mappings]
        return tuple(map(audit.outcome, current))


def _find_ready(url: str, path: Path) -> SqliteReader | None:
    """Return a reader of a registry file, or ``None`` if it has to be recovered, migrated or seeded first."""
    with ExitStack() as stack:
        reader = SqliteReader(path)
        stack.callback(reader.close)
        reader.check()
        if reader.has_journal() or usable_state(url, reader) != "ready":
            return None
        stack.pop_all()
        return reader
