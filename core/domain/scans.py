"""Describe a scan and its proposals, and fit a family's proposal to any PEFT method."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InvalidRequest, UnknownPreset, quoted
from ..extras import require
from ..notebook import draw_stacks, render_table
from ..schema import Config, schema_config, to_json
from .architectures import Architecture, ModelPart, PromptFacts, StoredFacts
from .choosing.choose import Subject, choose
from .choosing.query import Selection
from .choosing.ranks import Offer, Ranks, fit_budget, parse_budget, rank_experts
from .layers import Blocks, Coverage, Layer, Slot, stack_layers
from .methods import TARGETED, UNTARGETED, Method, explain_facts, get_family, get_method, nothing_for
from .patterns import name_targets
from .selection import (
    Choice,
    count_fixed,
    count_gains,
    count_per_rank,
    describe_blocks,
    describe_slots,
    make_block_spec,
    make_spec,
    size_per_rank,
)
from .targets import Formula, HasFormula, HasSpec, TargetMatcher, Targets, TargetSpec, find_hits, without_exclusion
from .vocabulary import EVERYTHING, PRESETS, RANK, RECOMMENDED, STANDS_FOR, Preset, Tower

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BY_COVERAGE: tuple[str, ...] = ("recommended", "all-linear", "mlp", "attention", "default")
"""The presets a budget chooses from, the one preferred first."""


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
    """Parameters trained at ``rank``; null without a formula."""
    formula: Formula | None
    """Parameters trained at any rank; null where only the shared targets of another method are known."""
    coverage: tuple[Coverage, ...] = ()
    """Blocks with matched layers, by kind of block."""
    reached: float = 0.0
    """Share of the block parameters that the matched layers own, 0 to 1."""
    reasons: tuple[str, ...]
    """Why these layers, in words."""
    rank: int = RANK
    """Rank of LoRA that ``trainable`` is stated for."""
    rank_pattern: dict[str, int] | None = None
    """Ranks of layers that have another one, by regexes as in PEFT; ``formula`` counts them as fixed."""
    alpha_pattern: dict[str, float] | None = None
    """Alphas of the same layers, which scale them as the others where ``lora_alpha`` is 8, PEFT's default."""

    def __post_init__(self) -> None:
        """Derive the size at the rank."""
        object.__setattr__(self, "trainable", self.formula.count(self.rank) if self.formula else None)


@dataclass(frozen=True, slots=True)
class Variant:
    """Another build of an architecture: the first of layers, and of modules, that differ only by an index."""

    says: str
    """Its class, configuration or part, such as ``FalconConfig(parallel_attn=False)``."""
    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    is_class: bool = False
    """Whether it is another class of the same configuration."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What proposals need of a model beside its layers and modules.

    Attributes:
        parameter_paths: Every parameter path.
        saved_parameters: Parameters of the modules that every proposal trains in full.
        apart: Paths of the parts that are trained apart from the model, such as a vocoder.
        remarks: Reasons that every proposal has.
    """

    parameter_paths: tuple[str, ...] = ()
    saved_parameters: int = 0
    apart: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


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
    stored: StoredFacts | None = None
    """What was read of a stored model; null if no stored model was scanned."""
    module_paths: tuple[str, ...] = field(default=(), repr=False, metadata={"exclude": True})
    """Every module path of the model, which target specs are matched against; not part of the JSON form."""
    beside: Beside = field(default_factory=Beside, repr=False, metadata={"exclude": True})
    """The model beside its layers; not part of the JSON form."""
    left_out: tuple[str, ...] = field(default=(), repr=False, metadata={"exclude": True})
    """What of the model no layer stands for, in words that every proposal's reasons have; not part of the JSON form."""
    digest: str | None = field(default=None, repr=False, metadata={"exclude": True})
    """Digest of all that was found before a proof: modules, weights, roles, and the operations of the forward. A scan
    of another build with this digest has the same result. Null unless the whole model was traced in time; not part of
    the JSON form."""
    variants: tuple[Variant, ...] = field(default=(), repr=False, metadata={"exclude": True})
    """Other builds, if it was scanned to verify entries for every checkpoint of its type; not part of the JSON form."""

    def propose(self, peft_type: str = "LORA", preset: str = "default", **choice: Any) -> Proposal:
        """Return the proposal for a PEFT method and preset; methods that share targets share proposals.

        Args:
            peft_type: PEFT's name of the method.
            preset: Preset of the method.
            **choice: ``towers`` to adapt instead of those of the preset (a list or a text such as
                ``vision,projector``, or ``all``); ``roles``, or patterns such as ``attention.*``: the layers of the
                preset with one of them, and with preset ``default`` every layer with one; ``blocks`` of each stack
                (``last 8``, ``first 4``, ``every 2``, ``10-20``, or a list of numbers from 0); for LoRA ``rank``,
                ``expert_rank`` (``auto``, ``shared`` or a number) and ``budget``, the parameters to train at most
                (``20_000_000``, ``0.5%``), which decides rank and preset.

        Raises:
            UnknownPeftType: If PEFT has no such method.
            UnknownPreset: If nothing is proposed for ``preset``.
            UnknownName: If a tower or a role is unknown, or the model lacks the tower.
            InvalidRequest: If a value cannot be read, nothing is left to adapt, or the budget is too small.
            MethodDoesNotFit: If the method can adapt none of the layers it would have to adapt.
        """
        return self.propose_selection(peft_type, Selection.parse(preset, **choice))

    def propose_selection(self, peft_type: str, selection: Selection) -> Proposal:
        """Return the proposal for a PEFT method and a selection, as ``propose``."""
        preset = selection.preset
        method, reference = get_method(peft_type), self.architecture.reference
        if method.family in UNTARGETED:
            check_preset(reference, preset, ["default"])
            if not selection.is_plain:
                raise nothing_for(method, reference, f"it names no layers, so there is nothing to select: {selection}")
            if not self.proposals:
                raise nothing_for(method, reference, "it has no layer that is adapted at all")
            facts = explain_facts(method, self.architecture.name, self.prompt_facts)
            return Proposal(peft_type=method.name, preset="default", matched=0, formula=None, reasons=facts)
        proposals = _list_by_preset(self, method.family)
        if not proposals:
            raise nothing_for(method, reference, f"no layer of it is one that {method.family} is for")
        if method.name != TARGETED and (selection.rank, selection.expert_rank, selection.budget) != (None, None, None):
            raise nothing_for(method, reference, f"rank, expert_rank and budget are counted for {TARGETED} alone")
        if selection.budget is not None:
            return _fit_budget(self, selection, proposals)
        proposal = _choose(self, selection, method.family, proposals)
        if method.name == TARGETED:
            layers = find_hits(proposal.spec, self.layers)
            return _with_ranks(self, proposal, _make_ranks(self, layers, selection, selection.rank or RANK))
        return proposal if proposal.peft_type == method.name else _narrow(self, proposal, method)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``loradar scan --json``."""
        return to_json(self)

    def _repr_html_(self) -> str:
        """Return the table of slots that a notebook shows, without the norms."""
        rows = [(x.role, x.count, x.kind, x.tower, x.pattern) for x in self.slots if x.role != "norm"]
        title = f"{self.architecture.reference} · {self.architecture.class_name} · by {self.method}"
        return render_table(title, ("role", "layers", "kind", "tower", "pattern"), rows)

    def plot(self, peft_type: str = "LORA", preset: str = "default", **choice: Any) -> "Figure":
        """Draw what a proposal adapts, block by block: a matplotlib figure with the stacks of each tower.

        The arguments are those of ``propose``. Norms are left out unless they are adapted.

        Raises:
            MissingExtra: If matplotlib is not installed.
            LoradarError: As ``propose``.
        """
        require("plot", "matplotlib")
        proposal = self.propose(peft_type, preset, **choice)
        hits = {layer.path for layer in find_hits(proposal.spec, self.layers)}
        title = f"{self.architecture.reference} · {proposal.peft_type} {proposal.preset} · {len(hits)} layers adapted"
        return draw_stacks(title, stack_layers(self.layers, hits))


def _list_by_preset(scan: Scan, family: str) -> dict[str, Proposal]:
    """Return the proposals of a family by preset, also that of the preset that another one stands for."""
    proposals: dict[str, Proposal] = {p.preset: p for p in scan.proposals if p.peft_type == family}
    same = proposals.get(STANDS_FOR[RECOMMENDED])
    if same:
        proposals.setdefault(RECOMMENDED, replace(same, preset=RECOMMENDED))
    return {preset: proposals[preset] for preset in PRESETS if preset in proposals}


def _choose(scan: Scan, selection: Selection, family: str, proposals: dict[str, Proposal]) -> Proposal:
    """Return the proposal of a family for the layers of a selection."""
    if selection.is_whole:
        check_preset(scan.architecture.reference, selection.preset, proposals)
        return proposals[selection.preset]
    check_preset(scan.architecture.reference, selection.preset, get_family(family).presets)
    hits = {name: find_hits(proposal.spec, scan.layers) for name, proposal in proposals.items()}
    plain = proposals.get(selection.preset)
    scaled = find_hits(TargetSpec(plain.feedforward_modules), scan.layers) if plain else ()
    why = f"those of preset {selection.preset!r}"
    saved = scan.proposals[0].modules_to_save or ()
    subject = Subject(
        reference=scan.architecture.reference,
        layers=scan.layers,
        focus=frozenset(layer.tower for name in hits if name != EVERYTHING for layer in hits[name]),
        apart=(*scan.beside.apart, *saved),
        plain=Choice(family, hits[plain.preset], why, plain.preset, scaled) if plain else None,
        class_name=scan.architecture.class_name if scan.architecture.library == "transformers" else None,
    )
    choice, reasons = choose(subject, selection)
    paths = (scan.module_paths, scan.beside.parameter_paths)
    spec = make_block_spec(choice, *paths, saved) if selection.blocks else make_spec(choice, scan.layers, *paths, saved)
    gains = count_gains(choice.layers, scan.beside.parameter_paths)
    is_sized = family in ("LORA", "IA3")
    fixed = count_fixed(choice, {}, gains) + scan.beside.saved_parameters if is_sized else 0
    blocks = Blocks(scan.layers)
    return Proposal(
        peft_type=family,
        preset=choice.preset,
        **spec.values,
        matched=len(choice.layers),
        formula=Formula(count_per_rank(choice, gains), fixed) if is_sized else None,
        coverage=blocks.cover(choice.layers),
        reached=blocks.share(choice.layers),
        reasons=(*describe_slots(choice), choice.why, *describe_blocks(spec), *reasons, *scan.beside.remarks),
    )


def _make_ranks(scan: Scan, layers: Sequence[Layer], selection: Selection, rank: int) -> Ranks:
    """Return the ranks of the layers of a selection."""
    return rank_experts(layers, rank, selection.rank_of_experts, scan.prompt_facts.active_experts)


def _with_ranks(scan: Scan, proposal: Proposal, ranks: Ranks) -> Proposal:
    """Return a proposal of LoRA at these ranks."""
    sizes = _size_layers(scan, find_hits(proposal.spec, scan.layers))
    every = [*scan.module_paths, *(x.path for x in scan.layers if x.kind == "expert_parameter")]
    fields = ranks.to_fields(sizes, proposal.fixed or 0, every)
    return replace(proposal, **fields, reasons=(*proposal.reasons, *ranks.reasons))


def _size_layers(scan: Scan, layers: Sequence[Layer]) -> dict[str, int]:
    """Return the parameters that each rank of LoRA adds on each layer, by path."""
    gains = count_gains(layers, scan.beside.parameter_paths)
    return {layer.path: size_per_rank(layer) + gains.get(layer.path, 0) for layer in layers}


def _fit_budget(scan: Scan, selection: Selection, proposals: dict[str, Proposal]) -> Proposal:
    """Return the proposal of LoRA with most layers that uses a budget, at the largest ranks within it.

    Raises:
        InvalidRequest: If the smallest adapter is larger.
    """
    budget = parse_budget(selection.budget, scan.prompt_facts.parameters)
    offers = (_offer(scan, selection, proposal) for proposal in _list_for_budget(scan, selection, proposals))
    best, says = fit_budget(scan.architecture.reference, selection.budget, budget, offers)
    return replace(best, reasons=(says, *best.reasons))


def _offer(scan: Scan, selection: Selection, proposal: Proposal) -> Offer[Proposal]:
    """Return a proposal as a choice that may use a budget."""
    layers = find_hits(proposal.spec, scan.layers)
    make = partial(_make_ranks, scan, layers, replace(selection, preset=proposal.preset))
    return Offer(layers, _size_layers(scan, layers), proposal.fixed or 0, make, partial(_with_ranks, scan, proposal))


def _list_for_budget(scan: Scan, selection: Selection, proposals: dict[str, Proposal]) -> Iterator[Proposal]:
    """Yield the proposals that may use a budget, that with most layers first; the preset alone if one is given."""
    if selection.preset != "default" or selection.roles:
        yield _choose(scan, selection, TARGETED, proposals)
        return
    for preset in (name for name in BY_COVERAGE if name in get_family(TARGETED).presets):
        if preset == selection.preset:
            yield _choose(scan, selection, TARGETED, proposals)
        else:
            with suppress(UnknownPreset, InvalidRequest):
                yield _choose(scan, replace(selection, preset=preset), TARGETED, proposals)


def check_preset(reference: str, preset: str, known: Iterable[str]) -> None:
    """Raise ``UnknownPreset`` unless the preset is among the known ones."""
    names = list(known)
    if preset not in names:
        raise UnknownPreset(preset, names, f"{reference} has: {quoted(names)}.")


def _narrow(scan: Scan, proposal: Proposal, method: Method) -> Proposal:
    """Return the family's proposal for another method of it, without the layers that one cannot adapt."""
    if proposal.spec.saves_alone:
        return replace(proposal, peft_type=method.name, reasons=(method.shares, *proposal.reasons))
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
