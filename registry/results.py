"""Records of the registry: outcomes of writes and audits, the state of its database, and PEFT's constants."""

from dataclasses import dataclass
from typing import Any, Literal

from ..domain.mappings import Mapping, Source
from ..domain.targets import TargetSpec
from ..schema import to_json

Verdict = Literal["dead", "partial", "unproven", "live", "unscanned", "unknown"]
"""The status of a verification, or the reason for none: no scan was possible, or the library knows no such name."""


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
