"""What a scan finds, as frozen records: architectures, layers, slots, proposals and the scan itself.

No torch and no SQL in here, so that every folder can speak of them.
"""

from collections.abc import Mapping as Json
from dataclasses import dataclass, field
from typing import Any, Self

from .coverage import Coverage
from .prompt_facts import PromptFacts
from .proposals import answer
from .targets import TargetSpec
from .vocabulary import RANK, Kind, Library, Preset, Role, Tower


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model architecture: ``(library, name)`` is its identity, the rest says which build of it was seen.

    Attributes:
        library: ``transformers``, ``timm``, ``diffusers`` or ``torch``.
        name: ``model_type``, timm architecture without tag, class name or qualified name.
        class_name: The model class that was scanned.
        library_version: Version of the library it came from.
        fingerprint: ``sha256:`` digest of the structure with its names, the same for every width and depth.
        structure: The same without names, so that a renamed copy has it too; ``None`` unless the scan was traced.
    """

    library: Library
    name: str
    class_name: str | None = None
    library_version: str | None = None
    fingerprint: str | None = None
    structure: str | None = None

    @property
    def reference(self) -> str:
        """The reference that names it, such as ``timm:resnet50``."""
        return f"{self.library}:{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "library": self.library,
            "name": self.name,
            "class": self.class_name,
            "library_version": self.library_version,
            "fingerprint": self.fingerprint,
            "structure": self.structure,
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build an architecture from its JSON form; only library and name are required."""
        optional = (data.get(name) for name in ("class", "library_version", "fingerprint", "structure"))
        return cls(data["library"], data["name"], *optional)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason for a verdict: who says it (``names``, ``structure``, ``dataflow``, ``liveness``) and what."""

    by: str
    says: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A module (or a bare 3-D parameter) that owns an adaptable weight.

    Attributes:
        path: Dotted path in the model.
        kind: What an adapter has to imitate.
        class_name: The layer's own class.
        shape: Shape of its weight, as stored.
        in_features: Features (channels, embeddings) it reads; ``None`` where the word has no meaning.
        out_features: Features it writes.
        groups: Convolution groups; 1 elsewhere.
        owner: Class of the module that holds it.
        tied_to: Path of the first layer with the very same weight, if that is another one.
        block: Path of the innermost repeated block around it; ``None`` outside every block.
        depth: How many repeated blocks enclose it; 0 is outside every block.
        role: What it does in the model.
        tower: Which sub-model it belongs to.
        layout: How the output of a fused projection is split (``thirds``, ``halves``, ``unequal``, ``interleaved``), or
            which way round fused experts stand (``out_in``, ``in_out``); ``None`` elsewhere or when nothing was traced.
        called: Whether a traced forward ran it; ``False`` if its weight was read without it; ``None`` when no forward
            came by.
        bypassed: Where its weight is read outside its own forward, such as ``modeling_wavlm.py:210``.
        kernel: Where a path not taken here, such as a fused kernel's, reads its weight without calling it.
        live: Whether an adapter on it receives a gradient; ``None`` when that is unproven.
        proof: Why ``live`` is not true: what was seen instead of a gradient, or why nothing could be.
        evidence: Why the role is what it is: first what decided, then what else was said.
    """

    path: str
    kind: Kind
    class_name: str
    shape: tuple[int, ...]
    in_features: int | None = None
    out_features: int | None = None
    groups: int = 1
    owner: str = ""
    tied_to: str | None = None
    block: str | None = None
    depth: int = 0
    role: Role = "other"
    tower: Tower = "main"
    layout: str | None = None
    called: bool | None = None
    bypassed: str | None = None
    kernel: str | None = None
    live: bool | None = None
    proof: str | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def name(self) -> str:
        """Last segment of the path."""
        return self.path.rpartition(".")[2]

    @property
    def confidence(self) -> str:
        """``high`` if dataflow or structure decided the role, ``low`` if names did."""
        return "low" if not self.evidence or self.evidence[0].by == "names" else "high"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "path": self.path,
            "kind": self.kind,
            "class": self.class_name,
            "shape": list(self.shape),
            "in_features": self.in_features,
            "out_features": self.out_features,
            "groups": self.groups,
            "owner": self.owner,
            "tied_to": self.tied_to,
            "block": self.block,
            "depth": self.depth,
            "role": self.role,
            "tower": self.tower,
            "layout": self.layout,
            "called": self.called,
            "bypassed": self.bypassed,
            "kernel": self.kernel,
            "confidence": self.confidence,
            "live": self.live,
            "proof": self.proof,
            "evidence": [{"by": item.by, "says": item.says} for item in self.evidence],
        }


@dataclass(frozen=True, slots=True)
class Slot:
    """All layers of one tower with the same role, kind and path pattern (``*`` stands for an index).

    What else they share is told as for a ``Layer``: ``layout``, ``bypassed``, ``kernel``, ``live`` and ``proof``.
    """

    tower: Tower
    role: Role
    kind: Kind
    pattern: str
    count: int
    layout: str | None = None
    bypassed: str | None = None
    kernel: str | None = None
    live: bool | None = None
    proof: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "tower": self.tower,
            "role": self.role,
            "kind": self.kind,
            "pattern": self.pattern,
            "count": self.count,
            "layout": self.layout,
            "bypassed": self.bypassed,
            "kernel": self.kernel,
            "live": self.live,
            "proof": self.proof,
        }


@dataclass(frozen=True, slots=True)
class Proposal:
    """A target spec the scanner proposes for one PEFT method and preset.

    Attributes:
        matched: Layers it hits on the scanned build.
        per_rank: Parameters each rank of the adapter adds; 0 for a method without ranks, ``None`` for one of whose
            size nothing is known but that it shares another's targets.
        fixed: Parameters trained whatever the rank, saved modules included; ``None`` as for ``per_rank``.
        reasons: Why these layers, in words.
        coverage: Which blocks it reaches, by kind of block.
        reached: Share of the weights in the blocks that the layers hit own, 0 to 1.
    """

    peft_type: str
    preset: Preset
    spec: TargetSpec
    matched: int
    per_rank: int | None
    fixed: int | None
    reasons: tuple[str, ...]
    coverage: tuple[Coverage, ...] = ()
    reached: float = 0.0

    @property
    def trainable(self) -> int | None:
        """Parameters trained at rank 8, PEFT's default; ``None`` as for ``per_rank``."""
        return None if self.per_rank is None or self.fixed is None else RANK * self.per_rank + self.fixed

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "peft_type": self.peft_type,
            "preset": self.preset,
            **self.spec.to_dict(),
            "matched": self.matched,
            "trainable": self.trainable,
            "formula": None if self.per_rank is None else {"per_rank": self.per_rank, "fixed": self.fixed},
            "coverage": [coverage.to_dict() for coverage in self.coverage],
            "reached": self.reached,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class Scan:
    """Everything one scan found.

    Attributes:
        method: ``names`` or ``dataflow``.
        untraced: Towers whose roles rest on names, because no forward ran through them; all of them by ``names``.
        module_paths: Every module path of the model: the universe a target spec is matched against.
        towers: Path prefixes of the sub-models of each tower.
        proof: How the layers that are ``live`` were proved so, or why they could not be; ``None`` if nobody tried.
        prompt_facts: What methods that name no layers need to know.
    """

    architecture: Architecture
    method: str
    layers: tuple[Layer, ...]
    towers: dict[str, tuple[str, ...]]
    slots: tuple[Slot, ...]
    proposals: tuple[Proposal, ...]
    module_paths: tuple[str, ...] = field(repr=False)
    untraced: tuple[Tower, ...] = ()
    proof: str | None = None
    prompt_facts: PromptFacts = field(default_factory=PromptFacts)

    def propose(self, peft_type: str = "LORA", preset: str = "default") -> Proposal:
        """Return the proposal for a PEFT method and preset; methods that share targets share proposals.

        Raises:
            UnknownPeftType: If PEFT has no such method.
            UnknownPreset: If nothing is proposed for ``preset``.
            MethodDoesNotFit: If the method can adapt nothing of what would have to be adapted.
        """
        return answer(self, peft_type, preset)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``loradar scan --json``."""
        return {
            "architecture": self.architecture.to_dict(),
            "method": self.method,
            "untraced": list(self.untraced),
            "proof": self.proof,
            "layers": [layer.to_dict() for layer in self.layers],
            "towers": {name: list(prefixes) for name, prefixes in self.towers.items()},
            "slots": [slot.to_dict() for slot in self.slots],
            "prompt_facts": self.prompt_facts.to_dict(),
            "proposals": [proposal.to_dict() for proposal in self.proposals],
        }
