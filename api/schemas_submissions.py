"""The shapes of answers about submissions."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ..domain.submissions import Decision, Origin, SubmissionStatus
from ..domain.vocabulary import Library, Preset
from .schemas import CoverageBody, FormulaBody, Shape, Targets, VerificationBody
from .schemas_reads import DifferenceBody

SPEC_EXAMPLE: dict[str, Any] = {
    "target_modules": ["q_proj", "v_proj"],
    "exclude_modules": None,
    "modules_to_save": None,
    "target_parameters": None,
    "feedforward_modules": None,
}

VERIFICATION_EXAMPLE: dict[str, Any] = {
    "status": "live",
    "library_version": "5.23.0",
    "counts": {"q_proj": {"linear": 16}, "v_proj": {"linear": 16}},
    "reached": 0.1658,
    "findings": [],
}

EVIDENCE_EXAMPLE: dict[str, Any] = {
    "method": "dataflow",
    "builds": True,
    "proof": "proved on a small build",
    "verification": VERIFICATION_EXAMPLE,
    "outside": {},
    "near": {},
    "differences": [
        {"against": "the scanner's proposal", "mapping_id": None, "more": {}, "less": {}},
    ],
    "spec": SPEC_EXAMPLE,
    "spec_verification": VERIFICATION_EXAMPLE,
    "layers": {"model.layers.*.self_attn.q_proj": 16, "model.layers.*.self_attn.v_proj": 16},
    "matched": 32,
    "formula": {"per_rank": 131072, "fixed": 0},
    "coverage": [{"block": "model.layers: Olmo2DecoderLayer", "hit": 16, "of": 16}],
}

SUBMISSION_EXAMPLE: dict[str, Any] = {
    "id": 7,
    "status": "needs_review",
    "reason": None,
    "submitter": "ada",
    "origin": "contributor",
    "statement": {
        "library": "transformers",
        "name": "olmo2",
        "peft_type": "LORA",
        "preset": "default",
        **SPEC_EXAMPLE,
        "rationale": "Query and value, as PEFT has them for every other decoder.",
        "layers": None,
    },
    "evidence": EVIDENCE_EXAMPLE,
    "reviews": [],
    "mapping_id": None,
    "version": 2,
    "created_at": "2026-11-26T02:22:00.000000Z",
    "updated_at": "2026-11-26T02:22:09.000000Z",
}

CHECKING_EXAMPLE: dict[str, Any] = SUBMISSION_EXAMPLE | {
    "status": "checking",
    "evidence": None,
    "version": 1,
    "updated_at": "2026-11-26T02:22:00.000000Z",
}


class SpecBody(Shape):
    """A target spec in PEFT's fields."""

    target_modules: Targets
    exclude_modules: Targets
    modules_to_save: list[str] | None
    target_parameters: list[str] | None
    feedforward_modules: Targets


class ListedLayerBody(Shape):
    """One weight, as a contributor listed it."""

    path: str
    shape: list[int]
    class_name: str | None = Field(alias="class")


class StatedBody(SpecBody):
    """What was stated, as it was sent."""

    library: Library
    name: str
    peft_type: str
    preset: Preset
    rationale: str | None
    layers: list[ListedLayerBody] | None = Field(description="Null in lists: ask for the one submission")


class EvidenceBody(Shape):
    """What the machine checks found before anybody read it."""

    method: Literal["dataflow", "names", "listing"] = Field(description="How the layers are known")
    builds: bool = Field(description="Whether the architecture builds here")
    proof: str | None
    verification: VerificationBody | None = Field(description="Null if nothing was hit")
    outside: dict[str, list[str]] = Field(description="What it reaches besides the blocks of its tower")
    near: dict[str, list[str]] = Field(description="For each target that hits nothing, names that would")
    differences: list[DifferenceBody]
    spec: SpecBody | None = Field(description="Made anew from the layers hit: what a review publishes")
    spec_verification: VerificationBody | None = Field(description="What is found of that spec")
    layers: dict[str, int] = Field(description="The layers hit, by path pattern with their number")
    matched: int
    formula: FormulaBody | None
    coverage: list[CoverageBody]


class ReviewBody(Shape):
    """What a reviewer decided."""

    reviewer: str
    decision: Decision
    comment: str
    at: str


class SubmissionBody(Shape):
    """A statement on its way into the registry."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [SUBMISSION_EXAMPLE, CHECKING_EXAMPLE]})

    id: int
    status: SubmissionStatus
    reason: str | None = Field(description="Why it failed, was rejected or withdrawn")
    submitter: str
    origin: Origin
    statement: StatedBody
    evidence: EvidenceBody | None = Field(description="Null until the checks are through, and in lists")
    reviews: list[ReviewBody]
    mapping_id: str | None = Field(description="The revision that says it, once it is published")
    version: int = Field(ge=1)
    created_at: str
    updated_at: str


class SubmissionsBody(Shape):
    """A page of submissions, newest first; ``next`` is the ``before`` of the next page, null on the last one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"submissions": [CHECKING_EXAMPLE], "next": 7}]},
    )

    submissions: list[SubmissionBody]
    next: int | None
