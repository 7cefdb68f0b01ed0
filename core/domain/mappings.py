"""Describe the mappings of the registry, their sources and verifications, and the architectures they are of."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from ..error_body import ERROR_EXAMPLE, ErrorBody
from ..notebook import render_table
from ..references import Understood
from ..schema import Config, schema_config, to_json
from .architectures import ARCHITECTURE_EXAMPLE, Architecture, ArchitectureName, ModelPart, PromptFacts
from .layers import SLOT_EXAMPLE, Coverage, Slot
from .serving import Served
from .targets import Formula, HasFormula, HasSpec, Targets
from .versions import VersionedRename, Versions
from .vocabulary import RANK, Library, SourceKind, Status, Tower


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a mapping, such as ``peft`` 0.21.2."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    kind: SourceKind
    version: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of checking a mapping against one library version."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    status: Status
    library_version: str
    counts: dict[str, dict[str, int]]
    """Matched layers, by target and kind of layer: ``{"q_proj": {"linear": 32}}``."""
    reached: float = field(metadata={"ge": 0, "le": 1})
    """Share of the block parameters that the matched layers own."""
    findings: tuple[str, ...] = ()
    """Problems and notes, in words."""


Strength = Literal["strong", "mixed", "practice", "none"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A starting point for a training."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    rank: int
    alpha: int
    """``lora_alpha``."""
    learning_rate: str
    notes: tuple[str, ...] = ()
    """Further advice, with its sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The layers that train best in a family of architectures, by the evidence, beside those of a mapping."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    family: str
    """Family of the architecture, such as ``sequential-hybrid``."""
    preset: str
    """The preset to ask for."""
    text: str
    """What it adapts beyond the mapping, in one line."""
    why: str
    strength: Strength
    """Strength of the evidence: studies that agree, studies that do not or a single one, what trainers do, or none."""
    sources: tuple[str, ...]
    note: str = ""
    """What the sources leave open."""
    tight: str
    """The preset for a tight budget."""
    formula: Formula | None = None
    """Parameters trained at any rank; null if unknown."""
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping(HasSpec, HasFormula):
    """A mapping of the registry: the target spec of an architecture, PEFT type and preset, and its evidence."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (MAPPING_EXAMPLE,))

    architecture: ArchitectureName
    peft_type: str
    preset: str
    # The fields of TargetSpec.
    target_modules: Targets | None = None
    exclude_modules: Targets | None = None
    exclude_blocks: tuple[str, ...] | None = None
    """The part of ``exclude_modules`` that depends on the depth, true at any: ``layer.[-1 of 12].output`` is the last
    block's, which the scanned model of 12 blocks has at index 11."""
    modules_to_save: tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] | None = None
    feedforward_modules: Targets | None = None
    id: str
    """``sha256:`` digest of the revision's canonical JSON."""
    source: Source
    revision: int = field(metadata={"ge": 1})
    """Number of the revision within its source, from 1."""
    matched: int | None = None
    """Layers matched by the scan that proposed the mapping; null without a scan."""
    trainable: int | None = field(default=None, init=False)
    """Parameters trained at ``rank``; null without a formula."""
    formula: Formula | None = None
    """Parameters trained at any rank; null without a scan."""
    coverage: tuple[Coverage, ...] = ()
    """Blocks with matched layers, by kind of block; empty without a scan."""
    prompt_facts: PromptFacts | None = None
    """Depth and widths for methods that name no layers; null if the architecture was never scanned."""
    reasons: tuple[str, ...] = ()
    verification: Verification | None = None
    versions: Versions | None = None
    """Library versions whose scans gave the mapping; null if it is stated for any version."""
    parts: tuple[ModelPart, ...] = ()
    """The models of a composite architecture that the mapping was scanned or composed with; empty for any other."""
    rank: int = RANK
    """Rank of LoRA that ``trainable`` is stated for."""
    rank_pattern: dict[str, int] | None = None
    """Ranks of layers that have another one, by regexes as in PEFT; ``formula`` counts them as fixed."""
    alpha_pattern: dict[str, float] | None = None
    """Alphas of the same layers, which scale them as the others where ``lora_alpha`` is 8, PEFT's default."""
    understood: Understood | None = None
    """How the reference was understood, by a lookup; null if it names the architecture exactly."""
    recommended: Recommendation | None = None
    """What the evidence recommends for its family, by a lookup; null in lists, and if the architecture was never
    scanned."""
    served: tuple[Served, ...] = ()
    """What vLLM, SGLang and llama.cpp do with an adapter of LoRA on these layers, by a lookup; empty in lists, for
    models of other libraries than transformers, and if the architecture was never scanned."""

    def __post_init__(self) -> None:
        """Derive the size at the rank."""
        object.__setattr__(self, "trainable", self.formula.count(self.rank) if self.formula else None)

    @property
    def library(self) -> Library:
        """Library of the architecture."""
        return self.architecture.library

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return self.architecture.name

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``loradar lookup --json`` and ``GET /v1/targets``."""
        return to_json(self)

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        fields = ((name, value) for name, value in self.spec.values.items() if value)
        rows = [(name, value if isinstance(value, str) else ", ".join(value)) for name, value in fields]
        rows += [("source", f"{self.source.kind} {self.source.version}")]
        if self.verification:
            rows += [("verified", f"{self.verification.status} on {self.verification.library_version}")]
        rows += [("trains", f"{self.trainable:,} at rank {self.rank}")] if self.trainable is not None else []
        rows += [("reason", reason) for reason in self.reasons]
        return render_table(f"{self.library}:{self.name} · {self.peft_type} · {self.preset}", (), rows)


@dataclass(frozen=True, slots=True)
class MappingPage:
    """A page of mappings; ``next`` is the ``after`` of the next page, null on the last one."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (MappingPage((MAPPING_EXAMPLE,), PLACE_EXAMPLE),))

    mappings: tuple[Mapping, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class MappingFound:
    """The mapping to use."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (MappingFound(MAPPING_EXAMPLE),))

    mapping: Mapping


@dataclass(frozen=True, slots=True)
class BatchAnswers:
    """A mapping or an error for each question of a batch, in their order."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (BatchAnswers((MappingFound(MAPPING_EXAMPLE), ERROR_EXAMPLE)),)
    )

    answers: tuple[MappingFound | ErrorBody, ...]


@dataclass(frozen=True, slots=True)
class ArchitectureSummary:
    """An architecture in the list of architectures."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SUMMARY_EXAMPLE,))

    architecture: Architecture
    sources: tuple[SourceKind, ...]
    """Kinds of source of its mappings, sorted."""
    peft_types: tuple[str, ...]
    """PEFT types of its mappings, sorted."""
    presets: tuple[str, ...]
    """Presets of its mappings, sorted."""
    task: str = "other"
    """What its class is for, such as ``text generation``."""
    status: Status | None = None
    """Verification of its default targets of LoRA; null without any."""
    peft: Status | None = None
    """Verification of PEFT's own entry; null if PEFT has none."""
    towers: tuple[Tower, ...] = ()
    """Its towers with layers; empty if it was never scanned."""
    engines: tuple[str, ...] = ()
    """Engines that serve adapters of its class."""


@dataclass(frozen=True, slots=True)
class ArchitecturePage:
    """A page of architectures; ``next`` is the ``after`` of the next page, null on the last one."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (ArchitecturePage((SUMMARY_EXAMPLE,), "transformers:llama"),)
    )

    architectures: tuple[ArchitectureSummary, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class ArchitectureDetail:
    """Everything the registry holds about one architecture."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (DETAIL_EXAMPLE,))

    architecture: Architecture
    method: str | None
    """Method of the latest scan, ``names`` or ``dataflow``; null if it was never scanned."""
    proof: str | None
    """How the latest scan proved layers live, or why it could not."""
    prompt_facts: PromptFacts | None
    """Depth and widths for methods that name no layers; null if it was never scanned."""
    towers: dict[Tower, tuple[str, ...]]
    """Path prefixes of the sub-models of each tower."""
    slots: tuple[Slot, ...]
    mappings: tuple[Mapping, ...]
    """The recommended mapping for each PEFT type and preset."""
    revisions: tuple[Mapping, ...]
    """Every revision of every mapping, oldest first, without yanked ones."""
    renames: tuple[VersionedRename, ...] = ()
    """Names of its layers in other library versions."""
    parts: tuple[ModelPart, ...] = ()
    """The models inside it as scanned, if its configuration leaves the type of one free; else empty."""


@dataclass(frozen=True, slots=True)
class ArchitectureSlots:
    """The slots of an architecture in model order; none if it was never scanned."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (ArchitectureSlots(MAPPING_EXAMPLE.architecture, (SLOT_EXAMPLE,)),)
    )

    architecture: ArchitectureName
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An architecture similar to the queried one."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    architecture: Architecture
    similarity: float = field(metadata={"ge": 0, "le": 1})
    """Share of the slots that both have."""
    also: tuple[str, ...]
    """References of other architectures with the same fingerprint."""
    differences: tuple[str, ...]
    """Differences from the queried architecture, in words."""


@dataclass(frozen=True, slots=True)
class NeighbourList:
    """The architectures with the most similar slots, nearest first."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (NeighbourList((NEIGHBOUR_EXAMPLE,)),))

    similar: tuple[Neighbour, ...]


PLACE_EXAMPLE = "transformers:llama/LORA/default/peft/1"
MAPPING_EXAMPLE: Mapping = Mapping(
    architecture=ArchitectureName("transformers", "llama"),
    peft_type="LORA",
    preset="default",
    target_modules=("q_proj", "v_proj"),
    id="sha256:e17175a21c3e6617bd3652e3d895f76997042287a321150d369172385e152c83",
    source=Source("peft", "0.21.2"),
    revision=1,
    verification=Verification(
        "unproven", "5.24.0", {"q_proj": {"linear": 32}, "v_proj": {"linear": 32}}, reached=0.165803
    ),
)
SUMMARY_EXAMPLE: ArchitectureSummary = ArchitectureSummary(
    ARCHITECTURE_EXAMPLE,
    ("peft", "scanner"),
    ("IA3", "LORA"),
    ("all-linear", "attention", "default", "mlp"),
    "text generation",
    "live",
    "live",
    ("language",),
    ("vllm", "sglang", "llama_cpp"),
)
DETAIL_EXAMPLE: ArchitectureDetail = ArchitectureDetail(
    architecture=ARCHITECTURE_EXAMPLE,
    method="dataflow",
    proof="proved on a small build",
    prompt_facts=PromptFacts(32, 32, 4096, 32, 4096),
    towers={"language": ("model",)},
    slots=(SLOT_EXAMPLE,),
    mappings=(MAPPING_EXAMPLE,),
    revisions=(MAPPING_EXAMPLE,),
)
NEIGHBOUR_EXAMPLE: Neighbour = Neighbour(
    architecture=replace(ARCHITECTURE_EXAMPLE, name="qwen3", class_name="Qwen3ForCausalLM"),
    similarity=0.8462,
    also=("transformers:qwen3_text",),
    differences=("has norms in its attention: q_norm and k_norm",),
)
