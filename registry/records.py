"""Records of the registry: mappings to store, outcomes of writes and audits, the database's state, PEFT's constants."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..domain.architectures import Architecture, ArchitectureName
from ..domain.layers import Coverage
from ..domain.mappings import Mapping, Source
from ..domain.reports.audits import Verdict
from ..domain.scans import Proposal
from ..domain.targets import Formula, TargetSpec
from ..domain.versions import Versions
from ..domain.vocabulary import Library, Preset
from ..schema import to_json
from .db.encoding import MappingKey, mapping_id
from .mappings.ranges import find_unchanged


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping before it has a revision."""

    library: Library
    name: str
    peft_type: str
    preset: Preset
    spec: TargetSpec
    matched: int | None = None
    formula: Formula | None = None
    reasons: tuple[str, ...] = ()
    coverage: tuple[Coverage, ...] = ()

    @property
    def key(self) -> MappingKey:
        """The architecture, PEFT type and preset."""
        return MappingKey(self.library, self.name, self.peft_type, self.preset)

    def revise(self, source: Source, known: Sequence[Mapping], version: str | None = None) -> Mapping:
        """Return the known revision with the same spec for a library version, else the next revision.

        A known one is returned unchanged, or with its range extended to the version.
        """
        same = find_unchanged(known, self.spec, version)
        if same:
            return same
        revision = max((mapping.revision for mapping in known), default=0) + 1
        return Mapping(
            id=mapping_id(self.key, source.kind, revision, self.spec),
            architecture=ArchitectureName(self.library, self.name),
            peft_type=self.peft_type,
            preset=self.preset,
            **self.spec.values,
            source=source,
            revision=revision,
            matched=self.matched,
            formula=self.formula,
            reasons=self.reasons,
            coverage=self.coverage,
            versions=Versions(version, version) if version else None,
        )


def entries_of_proposals(architecture: Architecture, proposals: Iterable[Proposal]) -> Iterator[Entry]:
    """Yield the proposals of a scan as entries."""
    named = (architecture.library, architecture.name)
    for p in proposals:
        yield Entry(*named, p.peft_type, p.preset, p.spec, p.matched, p.formula, p.reasons, p.coverage)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """The outcome of one write.

    Attributes:
        added: New revisions.
        unchanged: Mappings on record with the same spec.
        serial: The registry's serial after the write.
        extended: Mappings on record for other library versions that now hold for the scanned one too.
    """

    added: tuple[Mapping, ...]
    unchanged: tuple[Mapping, ...]
    extended: tuple[Mapping, ...]
    serial: int


@dataclass(frozen=True, slots=True)
class Constant:
    """One of PEFT's constants as in its file, such as ``SEQ_CLS_HEAD_NAMES``.

    Attributes:
        value: The JSON form; a function PEFT names as a value is ``{"function": name}``.
        conditional: Entries that PEFT sets under a condition: ``{"name", "key", "value", "if"}``.
    """

    name: str
    value: Any
    conditional: tuple[dict[str, Any], ...]
    source: Source


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """The state of a registry's database.

    Attributes:
        url: Its SQLAlchemy URL, the password masked.
        revision: Revision of its schema.
        serial: Number of writes that changed the registry.
        counts: Rows per table.
        sources: Sources of its mappings.
    """

    url: str
    revision: str
    serial: int
    counts: dict[str, int]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an audit for one mapping.

    Attributes:
        mapping: The mapping with its verification for the audited version, if there is one.
        reason: Reason for a missing verification.
        suggestion: Proposal of the scanner that could replace a dead or partial mapping.
    """

    mapping: Mapping
    verdict: Verdict
    reason: str | None = None
    suggestion: TargetSpec | None = None

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings of the verification, or the reason for none."""
        if self.reason:
            return (self.reason,)
        return self.mapping.verification.findings if self.mapping.verification else ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the fields of the mapping and these."""
        suggestion = to_json(self.suggestion) if self.suggestion else None
        return {**to_json(self.mapping), "verdict": self.verdict, "reason": self.reason, "suggestion": suggestion}
