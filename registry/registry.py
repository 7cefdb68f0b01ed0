"""The registry: look up, list, compare and contribute mappings."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Mapping as Values
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import func, select

from ..domain.architectures import Architecture
from ..domain.changes import AuditLogReport, Change, Revision
from ..domain.choosing.query import Selection
from ..domain.identities import LOCAL, Actor
from ..domain.layers import Slot
from ..domain.mappings import ArchitectureDetail, ArchitectureSummary, Mapping, Neighbour, Source
from ..domain.methods import choose_preset
from ..domain.scans import Scan
from ..domain.submissions import Difference
from ..domain.vocabulary import SourceKind
from ..errors import InvalidRequest
from ..settings import Settings
from . import store
from .browsing import Browsing
from .catalogs import seed_digest
from .contributions.local_backend import LocalBackend
from .contributions.submissions import Submissions
from .contributions.tokens import Tokens
from .crawls import Crawls
from .db import prepare, tables
from .db.audit_log import serial_of, state_of, verify_log
from .db.database import Database, masked
from .db.encoding import MappingKey
from .db.readiness import ReadyState, check_readiness
from .db.schema_revision import find_revision
from .db.time_limits import LOCAL_LIMITS, TimeLimits
from .db.watch import State, StateWatch
from .mappings import compare, compose, history, listing, not_found, resolve, selections
from .mappings.similar import Similarity
from .mappings.stored_names import list_slots
from .mirror.snapshot_loading import Mirror
from .mirror.snapshot_writing import snapshot_lines
from .peft_constants.reading import PeftConstants
from .records import Constant, DatabaseInfo, Outcome, StoreReport
from .references import find_understood
from .seed import add_seed
from .sqlite_lookup import SqliteLookup
from .verification.audit import Audit, suggestions_on_record

_COUNTED = (tables.architectures, tables.slots, tables.mappings, tables.verifications, tables.renames, tables.constants)


class Registry:
    """An open registry database; also a context manager that closes it.

    Attributes:
        url: SQLAlchemy URL of the database.
        tokens: The tokens, by which writers authenticate.
        submissions: Submissions and their checks.
        crawls: What crawls of hubs found.
        browsing: The ways to an architecture without its exact name.
        mirror: The registry as a mirror of another one.
        make: Make the database if it is not made yet, or raise ``DatabaseUnusable``; every write does.
    """

    def __init__(self, database: Database) -> None:
        self.url = database.url
        self._database = database
        self._fast = SqliteLookup(database.file) if database.file else None
        self._similarity = Similarity()
        self.tokens = Tokens(database)
        self.submissions = Submissions(database)
        self.crawls = Crawls(database)
        self.browsing = Browsing(database)
        self.mirror = Mirror(database)
        self.make = database.make

    def backend(self, actor: Actor = LOCAL) -> LocalBackend:
        """Return this registry as a place to contribute to on behalf of a person."""
        return LocalBackend(self._database, actor)

    def get_revision(self, mapping_id: str) -> Revision:
        """Return a revision of a mapping with its history, or raise ``UnknownMapping``; 8 digits of its id suffice."""
        with self._database.read() as connection:
            return history.get_revision(connection, mapping_id)

    @classmethod
    def open(
        cls, settings: Settings | None = None, limits: TimeLimits = LOCAL_LIMITS, *, is_seeded: bool = True
    ) -> Self:
        """Open the registry; not made yet, the packaged one is read until a write. A mirror is made empty, not seeded.

        Raises:
            DatabaseUnusable: If the database is corrupted, foreign, newer or out of reach; it is left unchanged.
            MissingExtra: If the driver for PostgreSQL is not installed.
        """
        settings = settings or Settings.from_environment()
        seed = prepare.Seed(seed_digest(), add_seed if is_seeded else lambda _: None, is_seeded)
        return cls(prepare.open_database(settings.database_url, seed, limits, is_read_only=settings.read_only))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
        if self._fast:
            self._fast.close()

    def serial(self) -> int:
        """Return the number of writes that changed the registry."""
        with self._database.read() as connection:
            return serial_of(connection)

    def state(self) -> State:
        """Return the identity of a state of the registry: the serial, and the digest of the last change."""
        with self._database.read() as connection:
            return state_of(connection)

    def watch(self) -> StateWatch:
        """Return a watch that notices changes of the registry, cheaply enough for every request."""
        return StateWatch(self._database.file, self.state)

    def check_readiness(self, *, is_thorough: bool = True) -> ReadyState:
        """Return its state, or raise ``DatabaseUnusable`` if it cannot be used as it is to be; thorough takes 0.1 s."""
        return check_readiness(self._database, is_thorough=is_thorough)

    def info(self) -> DatabaseInfo:
        """Return the state of the database."""
        with self._database.read() as connection:
            sources = connection.execute(select(*tables.sources.c["kind", "version"]).order_by("kind", "version"))
            return DatabaseInfo(
                url=masked(self.url),
                revision=find_revision(connection) or "",
                serial=serial_of(connection),
                counts={t.name: connection.execute(select(func.count()).select_from(t)).scalar_one() for t in _COUNTED},
                sources=tuple(Source(**row) for row in sources.mappings()),
            )

    def lookup(  # noqa: PLR0913, PLR0917 - what identifies a mapping
        self,
        name: str,
        peft_type: str = "LORA",
        preset: str | None = None,
        library: str | None = None,
        library_version: str | None = None,
        parts: Values[str, str] | None = None,
        **choice: Any,
    ) -> Mapping:
        """Return the mapping to use, by precedence.

        ``name`` may be in any spelling; ``understood`` of the mapping tells how it was read. Without ``preset`` it is
        that of ``LORADAR_PRESET``, else ``default``.

        A mapping verified partial for ``library_version`` never wins over one that is not, and a dead one is not
        returned. For a version never scanned, the mapping at a scanned version with the same layer names is returned,
        with a reason that names it; without a version, the newest counts. ``parts`` gives the types of models in a
        composite architecture by the names of its parts, such as ``{"text": "t5"}``: the mapping is then composed of
        theirs. A ``choice`` of towers, roles, blocks, ranks and a budget, as in ``Scan.propose``, is computed from the
        stored slots.

        Raises:
            InvalidRequest: If ``library_version`` is no version, or a part cannot be chosen.
            UnknownName: If there is no such method or preset, or the architecture has no part or tower of a name.
            UnknownArchitecture: If the registry does not know the type of a part.
            MethodDoesNotFit: If the method can adapt none of the layers registered for its family.
            NotRegistered: If there is no such mapping; lists those there are, or near names, and a command.
            VersionUnproven: If the layer names at ``library_version`` are not known, and differ around it.
        """

        def find(library: str, name: str) -> Mapping | None:
            return self.find(name, peft_type, preset, library, library_version, parts, **choice)

        found = find_understood(name, library, find, self.list_references)
        if found is None:
            method = peft_type.upper(), choose_preset(preset, peft_type)
            with self._database.read() as connection:
                raise not_found.unknown_or_unanswered(connection, name, library, method, library_version)
        return found

    def list_references(self) -> list[str]:
        """Return the references of all architectures, such as ``timm:resnet50``."""
        with self._database.read() as connection:
            return listing.list_references(connection)

    def find(  # noqa: PLR0913, PLR0917 - what identifies a mapping
        self,
        name: str,
        peft_type: str = "LORA",
        preset: str | None = None,
        library: str = "transformers",
        library_version: str | None = None,
        parts: Values[str, str] | None = None,
        **choice: Any,
    ) -> Mapping | None:
        """Return the mapping of ``lookup``, or ``None`` if none is registered that is known to hold.

        Raises:
            LoradarError: As ``lookup``, but for what is not registered.
        """
        preset = choose_preset(preset, peft_type)
        not_found.check_preset(preset)
        key = MappingKey(library, name, peft_type.upper(), preset)
        selection = Selection.parse(preset, **choice)
        if parts and not selection.is_plain:
            message = "Parts and a selection cannot be combined. Scan your own configuration: loradar.scan(config)."
            raise InvalidRequest(message, field="part")
        if not selection.is_plain:
            with self._database.read() as connection:
                return selections.find_selected(connection, key, library_version, selection)
        if parts:
            with self._database.read() as connection:
                return compose.find_composed(connection, key, library_version, parts)
        if self._fast and not self._database.is_stood_in() and (found := self._fast.find(key, library_version)):
            return found
        with self._database.read() as connection:
            return resolve.find_mapping(connection, key, library_version)

    def find_by_fingerprint(self, fingerprint: str, peft_type: str = "LORA", preset: str = "default") -> Mapping | None:
        """Return the mapping of an architecture with this fingerprint, or ``None``."""
        not_found.check_preset(preset)
        with self._database.read() as connection:
            return resolve.find_by_fingerprint(connection, fingerprint, peft_type, preset)

    def list_by_structure(
        self, structure: str, peft_type: str = "LORA", preset: str = "default"
    ) -> tuple[Mapping, ...]:
        """Return the mapping of each architecture with this structure, under any layer names, best first."""
        not_found.check_preset(preset)
        with self._database.read() as connection:
            return resolve.list_by_structure(connection, structure, peft_type.upper(), preset)

    def list_alike(self, architecture: Architecture) -> tuple[Architecture, ...]:
        """Return the other architectures with its fingerprint, then those with its structure under other names."""
        with self._database.read() as connection:
            return resolve.list_alike(connection, architecture)

    def list_architectures(
        self, library: str | None = None, q: str = "", after: tuple[str, str] | None = None, limit: int | None = None
    ) -> tuple[ArchitectureSummary, ...]:
        """Return architectures sorted by library and name, also those known only from PEFT's tables.

        Args:
            library: Only those of this library.
            q: Only those with this text in their name, in upper or lower case.
            after: Only those beyond this (library, name).
            limit: Largest number.
        """
        with self._database.read() as connection:
            return listing.list_architectures(connection, library, q, after, limit)

    def get_architecture(self, library: str, name: str) -> ArchitectureDetail:
        """Return everything known about an architecture.

        Raises:
            UnknownArchitecture: If the registry does not know it.
        """
        with self._database.read() as connection:
            return listing.get_architecture(connection, library, name)

    def list_slots(self, library: str, name: str) -> tuple[Slot, ...]:
        """Return the slots of an architecture, in the order of the model; none if it was never scanned.

        Raises:
            UnknownArchitecture: If the registry does not know it.
        """
        with self._database.read() as connection:
            return list_slots(connection, library, name) or listing.get_architecture(connection, library, name).slots

    def list_mappings(
        self,
        library: str,
        source: SourceKind | None = None,
        library_version: str | None = None,
        names: Collection[str] = (),
    ) -> tuple[Mapping, ...]:
        """Return the current revision of every mapping of a library for a version, sorted.

        Args:
            library: Library of the architectures.
            source: Only those of this kind of source.
            library_version: Version of their verifications; if not given, the newest counts.
            names: Only those of these architectures; of all if empty.
        """
        with self._database.read() as connection:
            return listing.list_mappings(connection, library, source, library_version, names)

    def list_verified_versions(self, library: str, source: SourceKind) -> tuple[str, ...]:
        """Return the versions of a library that mappings of a kind of source were verified on."""
        with self._database.read() as connection:
            return listing.list_verified_versions(connection, library, source)

    def find_mappings(  # noqa: PLR0913, PLR0917 - the filters
        self,
        source: str | None = None,
        peft_type: str | None = None,
        status: str | None = None,
        q: str = "",
        library: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[Mapping, ...]:
        """Return mappings in use, sorted by architecture, each with its verification for the newest version.

        Args:
            source: Only those of this kind of source.
            peft_type: Only those for this method.
            status: Only those whose verification has this status.
            q: Only those of architectures with this text in their name, in upper or lower case.
            library: Only those of this library.
            after: Only those beyond this place (``mapping_place``).
            limit: Largest number.

        Raises:
            InvalidRequest: If ``after`` is no place in the list.
        """
        wanted = listing.MappingFilter(source, peft_type and peft_type.upper(), status, q, library)
        with self._database.read() as connection:
            return listing.find_mappings(connection, wanted, after, limit)

    def compare(self, mapping_id: str, other_id: str) -> Difference:
        """Return the layers that only the first mapping matches, and those that only the other matches.

        Raises:
            UnknownMapping: If no revision has one of the ids.
            InvalidRequest: If they are of different architectures.
            NotRegistered: If the architecture was never scanned.
        """
        with self._database.read() as connection:
            return compare.compare(connection, mapping_id, other_id)

    def list_similar(self, library: str, name: str, limit: int = 10) -> tuple[Neighbour, ...]:
        """Return the most similar architectures by their slots, one per fingerprint, with their differences in words.

        Raises:
            UnknownArchitecture: If the registry does not know the architecture.
            NotRegistered: If the architecture was never scanned.
        """
        with self._database.read() as connection:
            return self._similarity.list_similar(connection, library, name, limit)

    def list_changes(self, since: int = 0, limit: int = 100) -> tuple[Change, ...]:
        """Return up to ``limit`` changes after a serial, oldest first, without the details of tokens."""
        with self._database.read() as connection:
            return history.list_changes(connection, since, limit)

    def list_history(self, library: str, name: str) -> tuple[Revision, ...]:
        """Return every revision of an architecture with its changes, also yanked, or raise ``UnknownArchitecture``."""
        with self._database.read() as connection:
            return history.list_history(connection, library, name)

    def verify_log(self, expect: str | None = None) -> AuditLogReport:
        """Recompute the audit log and return its inconsistencies; ``expect`` is the digest of an entry it must have."""
        with self._database.read() as connection:
            return verify_log(connection, expect)

    @contextmanager
    def snapshot(self, since: int | None = None) -> Iterator[Iterator[str]]:
        """Open a snapshot and yield its lines, unsigned; with ``since``, of the changes after that serial."""
        with self._database.read() as connection:
            yield snapshot_lines(connection, since)

    def constant(self, name: str, version: str | None = None) -> Constant:
        """Return one of PEFT's constants, such as ``SEQ_CLS_HEAD_NAMES``, with the version it is from.

        Raises:
            UnknownName: If PEFT's file has no such constant.
        """
        with self._database.read() as connection:
            return store.get_constant(connection, name, version)

    def add_scan(self, scan: Scan) -> StoreReport:
        """Store a scan; the same scan a second time changes nothing."""
        with self._database.write("scan.store") as write:
            return store.add_scan(write, scan)

    def add_constants(self, constants: PeftConstants) -> StoreReport:
        """Store PEFT's tables, and their entries as mappings with source ``peft`` at their version."""
        with self._database.write("constants.import") as write:
            return store.add_constants(write, constants)

    def audit(
        self, mappings: Sequence[Mapping], scans: Iterable[tuple[str, Scan | str]], known: Collection[str]
    ) -> tuple[Outcome, ...]:
        """Verify mappings of one library against scans, store each verification, and return every outcome.

        Those of names without a scan keep theirs (``list_mappings``); names not ``known`` to the library are unknown.
        """
        names = {mapping.name for mapping in mappings}
        libraries = {mapping.library for mapping in mappings}
        proposed = [own for library in libraries for own in self.list_mappings(library, "scanner", names=names)]
        audit = Audit(known, suggestions_on_record(proposed))
        checks = audit.check(mappings, scans)  # takes minutes: no other writer should wait for it
        with self._database.write("audit") as write:
            current = [store.put_verification(write, m, checks[m.id]) if m.id in checks else m for m in mappings]
        return tuple(map(audit.outcome, current))
