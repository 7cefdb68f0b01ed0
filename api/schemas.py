"""The shapes of bodies, for OpenAPI. Answers are the records' ``to_dict()``; tests hold the two together."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..domain.vocabulary import Kind, Library, Role, SourceKind, Status, Tower

Targets = list[str] | str | None

MAPPING_EXAMPLE: dict[str, Any] = {
    "architecture": {"library": "transformers", "name": "llama"},
    "peft_type": "LORA",
    "preset": "default",
    "target_modules": ["q_proj", "v_proj"],
    "exclude_modules": None,
    "modules_to_save": None,
    "target_parameters": None,
    "feedforward_modules": None,
    "id": "sha256:e17175a21c3e6617bd3652e3d895f76997042287a321150d369172385e152c83",
    "source": {"kind": "peft", "version": "0.21.2"},
    "revision": 1,
    "matched": None,
    "trainable": None,
    "formula": None,
    "coverage": [],
    "prompt_facts": None,
    "reasons": [],
    "verification": {
        "status": "unproven",
        "library_version": "5.23.0",
        "counts": {"q_proj": {"linear": 32}, "v_proj": {"linear": 32}},
        "reached": 0.165803,
        "findings": [],
    },
    "versions": None,
}

ARCHITECTURE_EXAMPLE: dict[str, Any] = {
    "library": "transformers",
    "name": "llama",
    "class": "LlamaForCausalLM",
    "library_version": "5.23.0",
    "fingerprint": "sha256:0f3b5d1c",
    "structure": "sha256:a8aa960f",
}

DETAIL_EXAMPLE: dict[str, Any] = {
    "architecture": ARCHITECTURE_EXAMPLE,
    "method": "dataflow",
    "proof": "proved on a small build",
    "prompt_facts": {
        "num_layers": 32,
        "num_attention_heads": 32,
        "token_dim": 4096,
        "num_key_value_heads": 32,
        "key_value_dim": 4096,
    },
    "towers": {"language": ["model"]},
    "slots": [
        {
            "tower": "language",
            "role": "attention.query",
            "kind": "linear",
            "pattern": "model.layers.*.self_attn.q_proj",
            "count": 32,
            "layout": None,
            "bypassed": None,
            "kernel": None,
            "live": True,
            "proof": None,
        }
    ],
    "mappings": [MAPPING_EXAMPLE],
    "revisions": [MAPPING_EXAMPLE],
    "renames": [],
}

SUMMARY_EXAMPLE: dict[str, Any] = {
    "architecture": ARCHITECTURE_EXAMPLE,
    "sources": ["peft", "scanner"],
    "peft_types": ["IA3", "LORA"],
    "presets": ["all-linear", "attention", "default", "mlp"],
}

SIMILAR_EXAMPLE: dict[str, Any] = {
    "similar": [
        {
            "architecture": ARCHITECTURE_EXAMPLE | {"name": "qwen3", "class": "Qwen3ForCausalLM"},
            "similarity": 0.8462,
            "also": ["transformers:qwen3_text"],
            "differences": ["has norms in its attention: q_norm and k_norm"],
        }
    ]
}

ERROR_EXAMPLE: dict[str, Any] = {
    "error": {
        "code": "not_registered",
        "message": "Nothing is registered for transformers:olmo2. Scan it with: loradar scan olmo2 --store.",
        "details": {"name": "olmo2", "near": [], "library": "transformers"},
    }
}


class Shape(BaseModel):
    """A body with exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class ArchitectureName(Shape):
    """What identifies an architecture."""

    library: Library
    name: str


class ArchitectureBody(Shape):
    """An architecture and the build of it that was scanned; nulls if nobody did."""

    library: Library
    name: str
    class_name: str | None = Field(alias="class")
    library_version: str | None
    fingerprint: str | None = Field(description="Digest of the structure with its names")
    structure: str | None = Field(description="Digest of the structure without names; null unless it was traced")


class SourceBody(Shape):
    """Where a mapping comes from."""

    kind: SourceKind
    version: str


class VerificationBody(Shape):
    """The outcome of checking a mapping against one library version."""

    status: Status
    library_version: str
    counts: dict[str, dict[str, int]] = Field(description="Layers matched, by target and kind of layer")
    reached: float = Field(ge=0, le=1, description="Share of the block parameters that the matched layers own")
    findings: list[str] = Field(description="What is wrong with the mapping, in words")


class FormulaBody(Shape):
    """Parameters an adapter of rank r trains: ``per_rank`` x r + ``fixed``."""

    per_rank: int
    fixed: int


class CoverageBody(Shape):
    """How many blocks of one kind a mapping reaches."""

    block: str = Field(description="Where they stand, and the classes that tell them from other kinds there")
    hit: int
    of: int


class PromptFactsBody(Shape):
    """What methods that name no layers need to know; null where nothing tells."""

    num_layers: int | None
    num_attention_heads: int | None
    token_dim: int | None
    num_key_value_heads: int | None
    key_value_dim: int | None = Field(description="Width of all cached heads together")


class VersionsBody(Shape):
    """The library versions a mapping was seen to hold at first and last."""

    since: str
    until: str


class MappingBody(Shape):
    """The recommended mapping: a target spec in PEFT's fields, and what speaks for it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [MAPPING_EXAMPLE]})

    architecture: ArchitectureName
    peft_type: str
    preset: str
    target_modules: Targets
    exclude_modules: Targets
    modules_to_save: list[str] | None
    target_parameters: list[str] | None
    feedforward_modules: Targets
    id: str = Field(description="Digest of the revision's canonical JSON")
    source: SourceBody
    revision: int = Field(ge=1)
    matched: int | None
    trainable: int | None
    formula: FormulaBody | None
    coverage: list[CoverageBody] = Field(description="Blocks reached, by kind of block; empty if nobody scanned it")
    prompt_facts: PromptFactsBody | None
    reasons: list[str]
    verification: VerificationBody | None
    versions: VersionsBody | None = Field(description="Null if it is stated for any version")


class SlotBody(Shape):
    """All layers of one tower with the same role, kind and path pattern."""

    tower: Tower
    role: Role
    kind: Kind
    pattern: str
    count: int
    layout: str | None = Field(description="thirds, halves, unequal or interleaved; out_in or in_out for fused experts")
    bypassed: str | None = Field(description="Where the weight is read without calling the layer")
    kernel: str | None = Field(description="Where a path not taken here, such as a fused kernel's, reads the weight")
    live: bool | None = Field(description="Whether an adapter there receives a gradient; null if that is unproven")
    proof: str | None = Field(description="Why it is not known to be live")


class RenameBody(Shape):
    """What layers were called in one version and are called in a later one, as starts of paths."""

    from_version: str
    to_version: str
    old: str
    new: str
    says: str


class SummaryBody(Shape):
    """One line of the list of architectures."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [SUMMARY_EXAMPLE]})

    architecture: ArchitectureBody
    sources: list[SourceKind]
    peft_types: list[str]
    presets: list[str]


class PageBody(Shape):
    """A page of architectures; ``next`` is the ``after`` of the next page, null on the last one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"architectures": [SUMMARY_EXAMPLE], "next": "transformers:llama"}]},
    )

    architectures: list[SummaryBody]
    next: str | None


class DetailBody(Shape):
    """Everything known about one architecture."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [DETAIL_EXAMPLE]})

    architecture: ArchitectureBody
    method: str | None
    proof: str | None = Field(description="How its layers were proved live, or why they could not be")
    prompt_facts: PromptFactsBody | None
    towers: dict[Tower, list[str]]
    slots: list[SlotBody]
    mappings: list[MappingBody] = Field(description="The recommended mapping per PEFT type and preset")
    revisions: list[MappingBody] = Field(description="Every revision of every mapping, oldest first")
    renames: list[RenameBody] = Field(description="What its layers were called in other versions")


class NeighbourBody(Shape):
    """An architecture near the one asked for."""

    architecture: ArchitectureBody
    similarity: float = Field(ge=0, le=1, description="Share of what their slots are that both have")
    also: list[str] = Field(description="Others with its fingerprint, of which the same holds")
    differences: list[str] = Field(description="How it differs from the architecture asked for, in words")


class SimilarBody(Shape):
    """The nearest architectures by what their slots are, nearest first."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [SIMILAR_EXAMPLE]})

    similar: list[NeighbourBody]


class HealthBody(Shape):
    """The process runs."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"status": "ok", "version": "0.1.0"}]})

    status: str
    version: str


class ReadyBody(Shape):
    """The database answers, at this serial."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"status": "ready", "serial": 1, "checks": "running"}]}
    )

    status: str
    serial: int
    checks: str = Field(description="`running`, or why submissions wait for their checks")


class IndexBody(Shape):
    """Where things are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "loradar", "version": "0.1.0", "links": {"openapi": "/openapi.json"}}]
        },
    )

    name: str
    version: str
    links: dict[str, str]


class ErrorContent(Shape):
    """What went wrong: a code for programs, a sentence for people, and the values behind it."""

    code: str
    message: str
    details: dict[str, Any]


class ErrorBody(Shape):
    """The one shape of every error."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [ERROR_EXAMPLE]})

    error: ErrorContent
