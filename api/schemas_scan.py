"""The shapes of a scan over REST: what is asked, and the JSON of ``loradar scan --json``."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ..domain.vocabulary import Kind, Preset, Role, Tower
from .schemas import ArchitectureBody, CoverageBody, FormulaBody, PromptFactsBody, Shape, SlotBody
from .schemas_submissions import SPEC_EXAMPLE, SpecBody

SCAN_EXAMPLE: dict[str, Any] = {
    "architecture": {
        "library": "torch",
        "name": "sent",
        "class": None,
        "library_version": None,
        "fingerprint": "sha256:0f3b5d1c",
        "structure": None,
    },
    "method": "names",
    "untraced": ["language"],
    "proof": None,
    "layers": [],
    "towers": {"language": ["model"]},
    "slots": [
        {
            "tower": "language",
            "role": "attention.query",
            "kind": "linear",
            "pattern": "model.layers.*.self_attn.q_proj",
            "count": 2,
            "layout": None,
            "bypassed": None,
            "kernel": None,
            "live": None,
            "proof": None,
        }
    ],
    "prompt_facts": {
        "num_layers": None,
        "num_attention_heads": None,
        "token_dim": None,
        "num_key_value_heads": None,
        "key_value_dim": None,
    },
    "proposals": [
        {
            "peft_type": "LORA",
            "preset": "default",
            **SPEC_EXAMPLE,
            "matched": 4,
            "trainable": 32768,
            "formula": {"per_rank": 4096, "fixed": 0},
            "coverage": [{"block": "model.layers", "hit": 2, "of": 2}],
            "reached": 0.25,
            "reasons": ["query and value, as PEFT does"],
        }
    ],
}


class SaidBody(Shape):
    """One reason for a verdict."""

    by: str
    says: str


class LayerAnswerBody(Shape):
    """One layer, with the role it plays and why."""

    path: str
    kind: Kind
    class_name: str = Field(alias="class")
    shape: list[int]
    in_features: int | None
    out_features: int | None
    groups: int
    owner: str
    tied_to: str | None
    block: str | None
    depth: int
    role: Role
    tower: Tower
    layout: str | None
    called: bool | None
    bypassed: str | None
    kernel: str | None
    confidence: Literal["high", "low"]
    live: bool | None
    proof: str | None
    evidence: list[SaidBody]


class ProposalBody(SpecBody):
    """A target spec the scanner proposes."""

    peft_type: str
    preset: Preset
    matched: int
    trainable: int | None = Field(description="Parameters it trains at rank 8")
    formula: FormulaBody | None
    coverage: list[CoverageBody]
    reached: float | None = Field(description="Share of the block parameters that the matched layers own")
    reasons: list[str]


class ScanBody(Shape):
    """Everything one scan found."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [SCAN_EXAMPLE]})

    architecture: ArchitectureBody
    method: str
    untraced: list[Tower] = Field(description="Towers whose roles rest on names")
    proof: str | None
    layers: list[LayerAnswerBody]
    towers: dict[Tower, list[str]]
    slots: list[SlotBody]
    prompt_facts: PromptFactsBody
    proposals: list[ProposalBody]


LAYERS_EXAMPLE: list[dict[str, Any]] = [
    {"path": f"model.layers.{block}.self_attn.{name}", "shape": [64, 64]}
    for block in range(2)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj")
]
