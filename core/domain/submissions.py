"""Contributions: what somebody states, what the machine found out about it, and what became of it."""

from collections.abc import Mapping as Json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, get_args

from .coverage import Coverage
from .mappings import Verification
from .targets import TargetSpec
from .vocabulary import Library, Preset

if TYPE_CHECKING:
    from .scans import Scan

SubmissionStatus = Literal["checking", "needs_review", "failed", "approved", "rejected", "published", "withdrawn"]
SUBMISSION_STATUSES: tuple[SubmissionStatus, ...] = get_args(SubmissionStatus)
OPEN_STATUSES: tuple[SubmissionStatus, ...] = ("checking", "needs_review", "approved")
"""In which something is still to be done."""

MOST_LAYERS = 200_000
MOST_DIMENSIONS = 8
LARGEST_DIMENSION = 1 << 31
"""Bounds of a list of layers."""

Origin = Literal["contributor", "drift"]
Decision = Literal["approve", "reject"]


class Filters(TypedDict, total=False):
    """What a list of submissions may be narrowed to."""

    status: SubmissionStatus | None
    library: str | None
    name: str | None
    submitter: str | None
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """One weight of a model that cannot be built here, as a file's header lists it.

    Attributes:
        path: Path of the module that owns the weight, without ``.weight``.
        shape: Shape of the weight as it is stored, such as ``(4096, 4096)``.
        class_name: Class of the module, if known.
    """

    path: str
    shape: tuple[int, ...]
    class_name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"path": self.path, "shape": list(self.shape), "class": self.class_name}

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a layer from its JSON form."""
        return cls(data["path"], tuple(data["shape"]), data.get("class"))


@dataclass(frozen=True, slots=True)
class Statement:
    """A mapping as a contributor states it.

    Attributes:
        spec: As it was sent: a regex in it is never run; what is published is made anew from the layers it hits.
        rationale: Why, in the contributor's words.
        layers: What the model consists of, where its library is not installed here.
    """

    library: Library
    name: str
    peft_type: str
    preset: Preset
    spec: TargetSpec
    rationale: str | None = None
    layers: tuple[ListedLayer, ...] = ()

    @property
    def reference(self) -> str:
        """The architecture, as in ``transformers:llama``."""
        return f"{self.library}:{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the body of ``POST /v1/submissions``."""
        return {
            "library": self.library,
            "name": self.name,
            "peft_type": self.peft_type,
            "preset": self.preset,
            **self.spec.to_dict(),
            "rationale": self.rationale,
            "layers": [layer.to_dict() for layer in self.layers] or None,
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a statement from its JSON form, which has been validated."""
        return cls(
            library=data["library"],
            name=data["name"],
            peft_type=data["peft_type"],
            preset=data["preset"],
            spec=TargetSpec.from_dict(data),
            rationale=data.get("rationale"),
            layers=tuple(map(ListedLayer.from_dict, data.get("layers") or ())),
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """Which layers a statement reaches more and less than another answer to the same question.

    Attributes:
        against: What it is compared with, in words: ``peft 0.21.2, revision 1`` or ``the scanner's proposal``.
        mapping_id: The mapping it is compared with, if it is one on record.
        more: Layers only the statement reaches, by path pattern (``*`` stands for an index) with their number.
        less: Layers only the other reaches.
    """

    against: str
    mapping_id: str | None
    more: dict[str, int]
    less: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"against": self.against, "mapping_id": self.mapping_id, "more": self.more, "less": self.less}

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a difference from its JSON form."""
        return cls(data["against"], data["mapping_id"], dict(data["more"]), dict(data["less"]))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the machine found out about a statement before anybody read it.

    Attributes:
        method: How the layers are known: ``dataflow`` or ``names`` of a build, or ``listing`` as the contributor sent.
        builds: Whether the architecture builds here.
        proof: How its layers were proved live, or why they could not be.
        verification: Status, layers hit per target and kind of layer, and findings; ``None`` if nothing was hit at all.
        outside: What it reaches besides the blocks of its tower: path patterns by ``head``, ``router``, ``embedding``,
            ``projector`` or the name of the other tower.
        near: For each target that hits nothing, names that would.
        differences: Beside what is registered, and beside the scanner's own proposal.
        spec: The target spec made anew from the layers hit, which is what a review publishes.
        spec_verification: What is found of that spec: it names nothing of the statement that hits nothing.
        layers: The layers hit, by path pattern with their number.
        matched: How many layers that is.
        per_rank: Parameters each rank of an adapter adds.
        fixed: Parameters trained whatever the rank.
        coverage: Which blocks it reaches, by kind of block.
    """

    method: Literal["dataflow", "names", "listing"]
    builds: bool
    proof: str | None = None
    verification: Verification | None = None
    outside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    near: dict[str, tuple[str, ...]] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    spec: TargetSpec | None = None
    spec_verification: Verification | None = None
    layers: dict[str, int] = field(default_factory=dict)
    matched: int = 0
    per_rank: int | None = None
    fixed: int | None = None
    coverage: tuple[Coverage, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "method": self.method,
            "builds": self.builds,
            "proof": self.proof,
            "verification": self.verification.to_dict() if self.verification else None,
            "outside": {part: list(patterns) for part, patterns in self.outside.items()},
            "near": {target: list(names) for target, names in self.near.items()},
            "differences": [difference.to_dict() for difference in self.differences],
            "spec": self.spec.to_dict() if self.spec else None,
            "spec_verification": self.spec_verification.to_dict() if self.spec_verification else None,
            "layers": self.layers,
            "matched": self.matched,
            "formula": None if self.per_rank is None else {"per_rank": self.per_rank, "fixed": self.fixed},
            "coverage": [coverage.to_dict() for coverage in self.coverage],
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build evidence from its JSON form."""
        formula = data["formula"] or {}
        return cls(
            method=data["method"],
            builds=data["builds"],
            proof=data["proof"],
            verification=_to_verification(data["verification"]),
            outside={part: tuple(patterns) for part, patterns in data["outside"].items()},
            near={target: tuple(names) for target, names in data["near"].items()},
            differences=tuple(map(Difference.from_dict, data["differences"])),
            spec=TargetSpec.from_dict(data["spec"]) if data["spec"] else None,
            spec_verification=_to_verification(data["spec_verification"]),
            layers=dict(data["layers"]),
            matched=data["matched"],
            per_rank=formula.get("per_rank"),
            fixed=formula.get("fixed"),
            coverage=tuple(map(Coverage.from_dict, data["coverage"])),
        )


def _to_verification(data: Json[str, Any] | None) -> Verification | None:
    return Verification.from_dict(data) if data else None


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of the machine checks.

    Attributes:
        evidence: What was found; ``None`` if nothing could be.
        failure: Why no reviewer needs to look at it, in one sentence; ``None`` if one should.
        scan: The scan it rests on, if the architecture was built here.
    """

    evidence: Evidence | None
    failure: str | None = None
    scan: "Scan | None" = None


@dataclass(frozen=True, slots=True)
class Review:
    """What a reviewer decided, and why."""

    reviewer: str
    decision: Decision
    comment: str
    at: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"reviewer": self.reviewer, "decision": self.decision, "comment": self.comment, "at": self.at}

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a review from its JSON form."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Submission:
    """A statement on its way into the registry.

    Attributes:
        id: Its number.
        statement: What was sent, as it was sent.
        status: Where it is.
        submitter: Name of whose token it came with.
        origin: ``drift`` if loradar opened it itself, because an audit differs.
        reason: Why it failed, was rejected or withdrawn.
        evidence: What the machine checks found; ``None`` until they are through.
        mapping_id: The revision that says it, once it is published.
        version: Counts its changes, from 1: what ``ETag`` and ``If-Match`` carry.
        created_at: ISO 8601 in UTC, as every time here.
        updated_at: When it last changed.
        reviews: Oldest first.
    """

    id: int
    statement: Statement
    status: SubmissionStatus
    submitter: str
    created_at: str
    updated_at: str
    origin: Origin = "contributor"
    reason: str | None = None
    evidence: Evidence | None = None
    mapping_id: str | None = None
    version: int = 1
    reviews: tuple[Review, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``GET /v1/submissions/{id}``."""
        return {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "submitter": self.submitter,
            "origin": self.origin,
            "statement": self.statement.to_dict(),
            "evidence": self.evidence.to_dict() if self.evidence else None,
            "reviews": [review.to_dict() for review in self.reviews],
            "mapping_id": self.mapping_id,
            "version": self.version,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a submission from its JSON form."""
        return cls(
            id=data["id"],
            statement=Statement.from_dict(data["statement"]),
            status=data["status"],
            submitter=data["submitter"],
            created_at=data["created_at"],
            updated_at=data["updated_at"],
            origin=data["origin"],
            reason=data["reason"],
            evidence=Evidence.from_dict(data["evidence"]) if data["evidence"] else None,
            mapping_id=data["mapping_id"],
            version=data["version"],
            reviews=tuple(map(Review.from_dict, data["reviews"])),
        )
