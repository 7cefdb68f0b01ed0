"""What only the registry has to tell: the outcome of a write, the state of its database, a PEFT constant."""

from dataclasses import dataclass
from typing import Any, Literal

from ..domain.mappings import Mapping, Source
from ..domain.targets import TargetSpec
from ..schema import to_json

Verdict = Literal["dead", "partial", "unproven", "live", "unscanned", "unknown"]
"""The status of a verification; or there is none, because no scan was possible or the library knows no such name."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What one write did.

    Attributes:
        added: New revisions.
        unchanged: Mappings whose latest revision already said the same.
        serial: The registry's serial after the write.
        extended: Mappings that said the same of other library versions, and now hold for the scanned one too.
    """

    added: tuple[Mapping, ...]
    unchanged: tuple[Mapping, ...]
    extended: tuple[Mapping, ...]
    serial: int


@dataclass(frozen=True, slots=True)
class Constant:
    """One of PEFT's constants as its file has it, such as ``SEQ_CLS_HEAD_NAMES``.

    Attributes:
        value: The JSON form; a function PEFT names as a value is ``{"function": name}``.
        conditional: What PEFT sets only under a condition: ``{"name", "key", "value", "if"}``.
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
        serial: Number of writes that changed something.
        counts: Rows per table.
        sources: Where its mappings come from.
    """

    url: str
    revision: str
    serial: int
    counts: dict[str, int]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one mapping fared in an audit.

    Attributes:
        mapping: With its verification for the version audited, if there is one.
        reason: Why there is no verification.
        suggestion: What the scanner would put in the place of a mapping that is dead or partial.
    """

    mapping: Mapping
    verdict: Verdict
    reason: str | None = None
    suggestion: TargetSpec | None = None

    @property
    def findings(self) -> tuple[str, ...]:
        """What was found, or why nothing could be."""
        if self.reason:
            return (self.reason,)
        return self.mapping.verification.findings if self.mapping.verification else ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the mapping's, with these."""
        suggestion = to_json(self.suggestion) if self.suggestion else None
        return {**to_json(self.mapping), "verdict": self.verdict, "reason": self.reason, "suggestion": suggestion}
