"""Describe a scan and its proposals, and fit a family's proposal to any PEFT method."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..errors import UnknownPreset, quoted
from ..schema import Config, schema_config, to_json
from .architectures import Architecture, ModelPart, PromptFacts
from .layers import Blocks, Coverage, Layer, Slot
from .methods import UNTARGETED, Method, explain_facts, get_method, nothing_for
from .patterns import name_targets
from .targets import Formula, HasFormula, HasSpec, TargetMatcher, Targets, TargetSpec, find_hits, without_exclusion
from .vocabulary import Preset, Tower


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(HasSpec, HasFormula):
    """A target spec the scanner proposes for one PEFT method and preset."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    peft_type: str
    preset: Preset
    # The fields of TargetSpec.
    target_modules: Targets | None = None
    exclude_modules: Targets | None = None
    exclude_blocks: tuple[str, ...] | None = None
    """The part of ``exclude_modules`` that depends on the depth, true at any: ``layer.[-1 of 12].output`` is the last
    block's, which the scanned model of 12 blocks has at index 11."""
    modules_to_save: tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] | None = None
    feedforward_modules: Targets | None = None
    matched: int
    """Layers the spec matches on the scanned build."""
    trainable: int | None = field(default=None, init=False)
    """Parameters trained at rank 8, PEFT's default; null without a formula."""
    formula: Formula | None
    """Parameters trained at any rank; null where only the shared targets of another method are known."""
    coverage: tuple[Coverage, ...] = ()
    """Blocks with matched layers, by kind of block."""
    reached: float = 0.0
    """Share of the block parameters that the matched layers own, 0 to 1."""
    reasons: tuple[str, ...]
    """Why these layers, in words."""

    def __post_init__(self) -> None:
        """Derive the size at the default rank."""
        object.__setattr__(self, "trainable", self.formula.count() if self.formula else None)


@dataclass(frozen=True, slots=True)
class Variant:
    """Another build of an architecture: the first of layers, and of modules, that differ only by an index."""

    says: str
    """Its class, configuration or part, such as ``FalconConfig(parallel_attn=False)``."""
    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    is_class: bool = False
    """Whether it is another class of the same configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The result of one scan."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SCAN_EXAMPLE,))

    architecture: Architecture
    method: str
    """``names`` or ``dataflow``."""
    untraced: tuple[Tower, ...] = ()
    """Towers whose roles come from names, because no forward ran through them; every tower if ``method`` is
    ``names``."""
    proof: str | None = None
    """How layers were proved live, or why they could not be; null if no proof was tried."""
    is_cut_short: bool = False
    """Whether time ran out before every forward and build was tried: nothing follows from what was not seen."""
    layers: tuple[Layer, ...]
    towers: dict[Tower, tuple[str, ...]]
    """Path prefixes of the sub-models of each tower."""
    slots: tuple[Slot, ...]
    prompt_facts: PromptFacts = field(default_factory=PromptFacts)
    """Depth and widths for methods that name no layers."""
    proposals: tuple[Proposal, ...]
    parts: tuple[ModelPart, ...] = ()
    """The models inside it, if its configuration leaves the type of one free; else empty."""
    frozen: tuple[str, ...] = ()
    """What was made anew around the pretrained model and is neither adapted nor saved, in words."""
    module_paths: tuple[str, ...] = field(default=(), repr=False, metadata={"exclude": True})
    """Every module path of the model, which target specs are matched against; not part of the JSON form."""
    digest: str | None = field(default=None, repr=False, metadata={"exclude": True})
    """Digest of all that was found before a proof: modules, weights, roles, and the operations of the forward. A scan
    of another build with this digest has the same result. Null unless the whole model was traced in time; not part of
    the JSON form."""
    variants: tuple[Variant, ...] = field(default=(), repr=False, metadata={"exclude": True})
    """Other builds, if it was scanned to verify entries for every checkpoint of its type; not part of the JSON form."""

    def propose(self, peft_type: str = "LORA", preset: str = "default") -> Proposal:
        """Return the proposal for a PEFT method and preset; methods that share targets share proposals.

        Raises:
            UnknownPeftType: If PEFT has no such method.
            UnknownPreset: If nothing is proposed for ``preset``.
            MethodDoesNotFit: If the method can adapt none of the layers it would have to adapt.
        """
        method, reference = get_method(peft_type), self.architecture.reference
        if method.family in UNTARGETED:
            check_preset(reference, preset, ["default"])
            if not self.proposals:
                raise nothing_for(method, reference, "it has no layer that is adapted at all")
            facts = explain_facts(method, self.architecture.name, self.prompt_facts)
            return Proposal(peft_type=method.name, preset="default", matched=0, formula=None, reasons=facts)
        proposals: dict[str, Proposal] = {p.preset: p for p in self.proposals if p.peft_type == method.family}
        if not proposals:
            raise nothing_for(method, reference, f"no layer of it is one that {method.family} is for")
        check_preset(reference, preset, proposals)
        proposal = proposals[preset]
        return proposal if proposal.peft_type == method.name else _narrow(self, proposal, method)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``loradar scan --json``."""
        return to_json(self)


def check_preset(reference: str, preset: str, known: Iterable[str]) -> None:
    """Raise ``UnknownPreset`` unless the preset is among the known ones."""
    names = list(known)
    if preset not in names:
        raise UnknownPreset(preset, names, f"{reference} has: {quoted(names)}.")


def _narrow(scan: Scan, proposal: Proposal, method: Method) -> Proposal:
    """Return the family's proposal for another method of it, without the layers that one cannot adapt."""
    matched = find_hits(proposal.spec, scan.layers)
    kept = [layer for layer in matched if method.fits(layer.kind, layer.groups)]
    dropped = Counter(layer.kind for layer in matched if not method.fits(layer.kind, layer.groups))
    if not kept:
        raise nothing_for(method, scan.architecture.reference, f"it adapts no {' or '.join(sorted(dropped))}")
    spec = _name_kept(scan, proposal.spec, kept) if dropped else proposal.spec
    blocks = Blocks(scan.layers)
    return replace(
        proposal,
        peft_type=method.name,
        **(spec if method.exclusion else without_exclusion(spec)).values,
        matched=len(kept),
        formula=proposal.formula if method.sized_alike and not dropped else None,
        reasons=(
            method.shares,
            *(f"left out: {count} {kind} layers, which {method.name} cannot adapt" for kind, count in dropped.items()),
            *((method.note,) if method.note else ()),
            *proposal.reasons,
        ),
        coverage=blocks.cover(kept),
        reached=blocks.share(kept),
    )


def _name_kept(scan: Scan, spec: TargetSpec, kept: list[Layer]) -> TargetSpec:
    """Return the part of a spec that matches the kept layers."""
    modules = [layer.path for layer in kept if layer.kind != "expert_parameter"]
    experts = TargetMatcher(spec.target_parameters or ())
    has_experts = any(experts.find(layer.path) for layer in kept if layer.kind == "expert_parameter")
    return replace(
        spec,
        target_modules=name_targets(modules, scan.module_paths) if modules else None,
        exclude_modules=None,
        exclude_blocks=None,
        target_parameters=spec.target_parameters if has_experts else None,
    )


SCAN_EXAMPLE: Scan = Scan(
    architecture=Architecture("torch", "sent", fingerprint="sha256:0f3b5d1c"),
    method="names",
    untraced=("language",),
    layers=(),
    towers={"language": ("model",)},
    slots=(Slot("language", "attention.query", "linear", "model.layers.*.self_attn.q_proj", 2),),
    proposals=(
        Proposal(
            peft_type="LORA",
            preset="default",
            target_modules=("q_proj", "v_proj"),
            matched=4,
            formula=Formula(4096, 0),
            coverage=(Coverage("model.layers", 2, 2),),
            reached=0.25,
            reasons=("query and value, as PEFT does",),
        ),
    ),
)
