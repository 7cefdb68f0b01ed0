"""What the registry keeps and everybody reads: mappings, where they come from and how each fared."""

from collections.abc import Mapping as Json
from dataclasses import dataclass
from typing import Any, Self

from .coverage import Coverage
from .prompt_facts import PromptFacts
from .targets import TargetSpec
from .versions import Versions
from .vocabulary import RANK, Library, SourceKind, Status


@dataclass(frozen=True, slots=True)
class Source:
    """Where a mapping comes from, such as ``peft`` 0.21.2."""

    kind: SourceKind
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, "version": self.version}


@dataclass(frozen=True, slots=True)
class Verification:
    """The recorded outcome of checking one mapping against one library version.

    Attributes:
        counts: Per target, the layers it matched, by kind: ``{"q_proj": {"linear": 32}}``.
        reached: Share of the parameters in the blocks that the matched layers own, 0 to 1.
        findings: What is wrong with it or worth knowing, in words; empty if nothing is.
    """

    status: Status
    library_version: str
    counts: dict[str, dict[str, int]]
    reached: float
    findings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "status": self.status,
            "library_version": self.library_version,
            "counts": self.counts,
            "reached": self.reached,
            "findings": list(self.findings),
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a verification from its JSON form."""
        return cls(**{**data, "findings": tuple(data.get("findings", ()))})


@dataclass(frozen=True, slots=True)
class Mapping:
    """(architecture, PEFT type, preset) -> target spec, as kept in the registry.

    Attributes:
        id: ``sha256:`` digest of the revision's canonical JSON.
        revision: Number of this revision within its source, from 1.
        matched: Layers the scan that proposed it hit; ``None`` for entries nobody scanned.
        per_rank: Parameters each rank of an adapter adds; ``None`` as for ``matched``.
        fixed: Parameters trained whatever the rank; ``None`` as for ``matched``.
        coverage: Which blocks it reaches, by kind of block; empty for entries nobody scanned.
        prompt_facts: What methods that name no layers need to know; ``None`` if nobody scanned the architecture.
        versions: The library versions between which scans gave it; ``None`` for entries stated for any version.
    """

    id: str
    library: Library
    name: str
    peft_type: str
    preset: str
    spec: TargetSpec
    source: Source
    revision: int
    matched: int | None = None
    per_rank: int | None = None
    fixed: int | None = None
    reasons: tuple[str, ...] = ()
    verification: Verification | None = None
    coverage: tuple[Coverage, ...] = ()
    prompt_facts: PromptFacts | None = None
    versions: Versions | None = None

    @property
    def trainable(self) -> int | None:
        """Parameters trained at rank 8, or ``None`` for entries nobody scanned."""
        if self.per_rank is None or self.fixed is None:
            return None
        return RANK * self.per_rank + self.fixed

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``loradar lookup --json`` and ``GET /v1/targets``."""
        return {
            "architecture": {"library": self.library, "name": self.name},
            "peft_type": self.peft_type,
            "preset": self.preset,
            **self.spec.to_dict(),
            "id": self.id,
            "source": self.source.to_dict(),
            "revision": self.revision,
            "matched": self.matched,
            "trainable": self.trainable,
            "formula": None if self.per_rank is None else {"per_rank": self.per_rank, "fixed": self.fixed},
            "coverage": [coverage.to_dict() for coverage in self.coverage],
            "prompt_facts": self.prompt_facts.to_dict() if self.prompt_facts else None,
            "reasons": list(self.reasons),
            "verification": self.verification.to_dict() if self.verification else None,
            "versions": self.versions.to_dict() if self.versions else None,
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a mapping from its JSON form."""
        verification, formula = data["verification"], data["formula"] or {}
        return cls(
            id=data["id"],
            library=data["architecture"]["library"],
            name=data["architecture"]["name"],
            peft_type=data["peft_type"],
            preset=data["preset"],
            spec=TargetSpec.from_dict(data),
            source=Source(**data["source"]),
            revision=data["revision"],
            matched=data["matched"],
            per_rank=formula.get("per_rank"),
            fixed=formula.get("fixed"),
            reasons=tuple(data["reasons"]),
            verification=Verification.from_dict(verification) if verification else None,
            coverage=tuple(map(Coverage.from_dict, data["coverage"])),
            prompt_facts=PromptFacts.from_dict(data["prompt_facts"]) if data["prompt_facts"] else None,
            versions=Versions(**data["versions"]) if data["versions"] else None,
        )
