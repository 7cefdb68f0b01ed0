"""Describe contributions: statements, the evidence of the machine checks, and reviews."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypedDict, get_args

from ..schema import Config, schema_config
from .layers import Coverage
from .mappings import Verification
from .targets import Formula, HasFormula, HasSpec, Targets, TargetSpec
from .vocabulary import Library, Preset

if TYPE_CHECKING:
    from .scans import Scan

SubmissionStatus = Literal["checking", "needs_review", "failed", "approved", "rejected", "published", "withdrawn"]
SUBMISSION_STATUSES: tuple[SubmissionStatus, ...] = get_args(SubmissionStatus)
OPEN_STATUSES: tuple[SubmissionStatus, ...] = ("checking", "needs_review", "approved")
"""Statuses that will still change."""

MOST_LAYERS = 200_000
MOST_DIMENSIONS = 8
LARGEST_DIMENSION = 1 << 31
"""Bounds of a list of layers."""

Origin = Literal["contributor", "drift"]
ReviewDecision = Literal["approve", "reject"]

_COUNTS = {"json_schema_extra": {"additionalProperties": {"type": "integer", "minimum": 0}}}


class Filters(TypedDict, total=False):
    """Values that submissions in a list must have; ``None`` for any."""

    status: SubmissionStatus | None
    library: str | None
    name: str | None
    submitter: str | None
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """One weight of a model that cannot be built here, as the header of a checkpoint lists it."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    path: str
    """Path of the module that owns the weight, without ``.weight``."""
    shape: tuple[int, ...]
    """Shape of the weight as stored, such as ``(4096, 4096)``."""
    class_name: str | None = None
    """Class of the module, if known."""


@dataclass(frozen=True, slots=True)
class Statement(HasSpec):
    """A mapping as a contributor states it, the body of ``POST /v1/submissions``.

    A regex in it is never run; a review publishes a spec derived from the layers it matches.
    """

    __pydantic_config__: ClassVar[Config] = schema_config()

    library: Library
    name: str
    peft_type: str
    preset: Preset
    # The fields of TargetSpec.
    target_modules: Targets | None = None
    exclude_modules: Targets | None = None
    exclude_blocks: ClassVar[None] = None
    """A contributor names layers; which of them are left out at any depth is seen when the mapping is published."""
    modules_to_save: tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] | None = None
    feedforward_modules: Targets | None = None
    rationale: str | None = None
    """Reasons of the contributor."""
    layers: tuple[ListedLayer, ...] | None = None
    """Layers of the model, where its library is not installed with the service; null in lists of submissions."""

    @property
    def reference(self) -> str:
        """The architecture, as in ``transformers:llama``."""
        return f"{self.library}:{self.name}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Layers that one mapping or statement matches and another does not, by path pattern with their number.

    The number is 0 where a target distinguishes indices: it matches some layers of the pattern, and their number is
    not on record.
    """

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (DIFFERENCE_EXAMPLE,))

    against: str
    """The other one, in words: ``peft 0.21.2, revision 1`` or ``the scanner's proposal``."""
    mapping_id: str | None
    """Id of the other mapping; null if it is none of the registry."""
    more: dict[str, int] = field(metadata=_COUNTS)
    """Layers that only this one matches, by path pattern."""
    less: dict[str, int] = field(metadata=_COUNTS)
    """Layers that only the other matches, by path pattern."""


@dataclass(frozen=True, slots=True)
class SubmissionEvidence(HasFormula):
    """The findings of the machine checks about a statement."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    method: Literal["dataflow", "names", "listing"]
    """Origin of the layers: a scan, by ``dataflow`` or ``names``, or the contributor's ``listing``."""
    builds: bool
    """Whether the architecture builds here."""
    proof: str | None = None
    """How layers were proved live, or why they could not be."""
    verification: Verification | None = None
    """Verification of the statement; null if it matches no layer."""
    outside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Path patterns matched outside the blocks of the tower, by ``head``, ``router``, ``embedding``, ``projector`` or
    the name of the other tower."""
    near: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names similar to each target that matches no layer."""
    differences: tuple[Difference, ...] = ()
    """Differences from the registered mappings and from the scanner's proposal."""
    spec: TargetSpec | None = None
    """The spec that a review publishes, derived from the matched layers."""
    spec_verification: Verification | None = None
    """Verification of that spec."""
    layers: dict[str, int] = field(default_factory=dict)
    """Matched layers by path pattern with their number."""
    matched: int = 0
    """Number of matched layers."""
    formula: Formula | None = None
    """Parameters an adapter on the matched layers trains."""
    coverage: tuple[Coverage, ...] = ()
    """Blocks with matched layers, by kind of block."""


@dataclass(frozen=True, slots=True)
class PreviewedTarget:
    """The layers or modules that one name, or one regex, of a statement matches."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    stated_in: str
    """Field of the statement it stands in, such as ``target_modules``."""
    target: str
    matched: int
    """Number of them; those of ``target_modules`` without the excluded ones."""
    layers: dict[str, int] = field(default_factory=dict, metadata=_COUNTS)
    """Them by path pattern with their number."""
    roles: tuple[str, ...] = ()
    towers: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    """Kinds of the other matches, which no adapter of the method fits, such as ``norm`` or ``module``."""
    near: tuple[str, ...] = ()
    """Names similar to one that matches nothing."""


@dataclass(frozen=True, slots=True)
class StatementPreview:
    """The effect of a statement on the layers that are known without a scan."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (PREVIEW_EXAMPLE,))

    reference: str
    known_by: Literal["registry", "listing"] | None
    """Origin of the layers: the ``registry``, or the statement's own ``listing``; null if none are known before the
    machine checks scan the architecture."""
    targets: tuple[PreviewedTarget, ...] = ()
    layers: dict[str, int] = field(default_factory=dict, metadata=_COUNTS)
    """Matched layers that an adapter fits, by path pattern with their number."""
    matched: int = 0
    """Number of these layers."""
    difference: Difference | None = None
    """Difference from the mapping that lookups return now; null if there is none."""
    near: tuple[str, ...] = ()
    """References similar to one of which no layers are known."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of the machine checks."""

    evidence: SubmissionEvidence | None
    """The findings; ``None`` if the statement could not be checked."""
    failure: str | None = None
    """Why the submission fails without a review, in one sentence; ``None`` if it goes to review."""
    scan: "Scan | None" = None
    """The scan behind the evidence, if the architecture was built here."""


@dataclass(frozen=True, slots=True)
class Review:
    """The decision of a reviewer."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    reviewer: str
    decision: ReviewDecision
    comment: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A statement on its way into the registry."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SUBMISSION_EXAMPLE, CHECKING_EXAMPLE))

    id: int
    status: SubmissionStatus
    reason: str | None = None
    """Why it failed, was rejected or withdrawn."""
    submitter: str
    """Name of the token's owner."""
    origin: Origin = "contributor"
    """``drift`` if loradar opened it because an audit found a difference."""
    statement: Statement
    evidence: SubmissionEvidence | None = None
    """Findings of the machine checks; null until they end, and in lists."""
    reviews: tuple[Review, ...] = ()
    """Oldest first."""
    mapping_id: str | None = None
    """The published revision."""
    version: int = field(default=1, metadata={"ge": 1})
    """Value of `ETag` and `If-Match`; each change adds 1."""
    created_at: str
    """ISO 8601 time in UTC, as every time here."""
    updated_at: str


@dataclass(frozen=True, slots=True)
class SubmissionPage:
    """A page of submissions, newest first; ``next`` is the ``before`` of the next page, null on the last one."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SubmissionPage((CHECKING_EXAMPLE,), 7),))

    submissions: tuple[Submission, ...]
    next: int | None


DIFFERENCE_EXAMPLE: Difference = Difference(
    against="peft 0.21.2, revision 1",
    mapping_id="sha256:e17175a21c3e6617bd3652e3d895f76997042287a321150d369172385e152c83",
    more={"model.layers.*.self_attn.k_proj": 32},
    less={},
)
_VERIFICATION = Verification("live", "5.24.0", {"q_proj": {"linear": 16}, "v_proj": {"linear": 16}}, 0.1658)
CHECKING_EXAMPLE: Submission = Submission(
    id=7,
    status="checking",
    submitter="ada",
    statement=Statement(
        "transformers",
        "olmo2",
        "LORA",
        "default",
        target_modules=("q_proj", "v_proj"),
        rationale="Query and value, as PEFT has them for every other decoder.",
    ),
    created_at="2026-11-26T02:22:00.000000Z",
    updated_at="2026-11-26T02:22:00.000000Z",
)
SUBMISSION_EXAMPLE: Submission = replace(
    CHECKING_EXAMPLE,
    status="needs_review",
    evidence=SubmissionEvidence(
        "dataflow",
        builds=True,
        proof="proved on a small build",
        verification=_VERIFICATION,
        differences=(Difference("the scanner's proposal", None, {}, {}),),
        spec=TargetSpec(("q_proj", "v_proj")),
        spec_verification=_VERIFICATION,
        layers={"model.layers.*.self_attn.q_proj": 16, "model.layers.*.self_attn.v_proj": 16},
        matched=32,
        formula=Formula(131072, 0),
        coverage=(Coverage("model.layers: Olmo2DecoderLayer", 16, 16),),
    ),
    version=2,
    updated_at="2026-11-26T02:22:09.000000Z",
)
PREVIEW_EXAMPLE: StatementPreview = StatementPreview(
    "transformers:olmo2",
    "registry",
    (
        PreviewedTarget(
            "target_modules",
            "q_proj",
            16,
            {"model.layers.*.self_attn.q_proj": 16},
            ("attention.query",),
            ("language",),
        ),
        PreviewedTarget("target_modules", "v_prj", 0, near=("v_proj",)),
    ),
    {"model.layers.*.self_attn.q_proj": 16},
    16,
    Difference(
        "scanner 5.24.0, revision 1", DIFFERENCE_EXAMPLE.mapping_id, {}, {"model.layers.*.self_attn.v_proj": 16}
    ),
)
