"""Decide which layers to adapt: registry by name, by fingerprint, by structure, live scan, in that order.

First the registry's entry by name is matched with the model's own layers. Only if there is none, or it does not fit,
does a forward run, and all four steps use its result.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from torch import nn

from ..discovery import identify, read_model, scan_module
from ..domain.architectures import Architecture
from ..domain.choosing.query import Selection
from ..domain.choosing.ranks import scale_alphas
from ..domain.choosing.recommendations import Structure, advise, find_rule
from ..domain.layers import Layer
from ..domain.mappings import ArchitectureDetail, Mapping, Recommendation
from ..domain.patterns import pattern_of
from ..domain.presets import EXPERT
from ..domain.scans import Scan
from ..domain.targets import TargetSpec, find_hits, resolve_blocks
from ..domain.vocabulary import RECOMMENDED
from ..errors import DatabaseUnusable, MethodDoesNotFit, NoAdaptableLayers, UnknownArchitecture, UnknownPreset
from ..lookups import Knowledge, open_knowledge
from ..registry import verify
from ..warn import warn
from .config import AdapterConfig, LoraConfig
from .fit import Fit, find_entry, fit, leave_out
from .translation import add_last_layers, translate

logger = logging.getLogger("loradar")

Step = Literal["config", "registry", "fingerprint", "structure", "scan"]
PEFT_TYPE = "LORA"


@dataclass(frozen=True, slots=True)
class Decision:
    """The targets of an adapter, and the step that decided them.

    Attributes:
        step: ``config`` (given), ``registry`` (by name), ``fingerprint`` (the registry's entry of an architecture with
            the same layers under the same names), ``structure`` (the same under other names) or ``scan`` (live).
        spec: The targets.
        says: The decision in words.
        reasons: The reasons for these layers, in words.
        layers: The layers behind the decision, with role and evidence: those the registry's entry matches, from the
            registry, if it fitted; else those of the scan, of which only the adapted ones are kept after the
            injection; empty for targets given.
        frozen: What was made anew around the pretrained model and is neither adapted nor saved, in words.
        rank: The rank that a budget gives; ``None`` where nothing decides it.
        rank_pattern: Ranks of layers that have another one, by regexes.
        recommended: What the evidence recommends beside these layers; ``None`` for targets given, and for methods
            without the preset.
    """

    step: Step
    spec: TargetSpec
    says: str
    reasons: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    frozen: tuple[str, ...] = ()
    rank: int | None = None
    rank_pattern: dict[str, int] | None = None
    recommended: Recommendation | None = None

    def describe(self) -> str:
        """Return the decision, and what is recommended beside it, in one line."""
        if self.spec.saves_alone and self.step != "config":
            return f"{self.says}; {self.spec.describe_saved()}"
        return f"{self.says}; {self.recommended.text}" if self.recommended else self.says

    def about(self, paths: Collection[str]) -> Self:
        """Return the decision with the layers at these paths alone."""
        kept = frozenset(paths)
        return replace(self, layers=tuple(layer for layer in self.layers if layer.path in kept))


def decide(
    model: nn.Module, preset: str = "default", peft_type: str = PEFT_TYPE, example_inputs: Any = None, **choice: Any
) -> Decision:
    """Decide the targets of a PEFT method in ``model``: modules, and fused experts as parameters.

    Every entry of the registry is checked against this model. One that does not fit is not used, with a warning of the
    reason. With ``example_inputs`` the model's forward is run with them in any case, and has the last word. With a
    ``choice`` of towers, roles, blocks or ranks, as in ``Scan.propose``, a scan of the model decides.

    Raises:
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If ``preset`` is no preset of the method, or selects nothing in this model.
        InvalidRequest: If the choice cannot be read, or selects nothing in this model.
        NoAdaptableLayers: If the model has no layer for an adapter.
        MethodDoesNotFit: If the method can adapt nothing of this model.
    """
    selection = Selection.parse(preset, **choice)
    if not selection.is_whole or selection.budget is not None:
        return _decide_choice(scan_known(model, example_inputs), peft_type, selection)
    known = decide_unscanned(model, preset, peft_type) if example_inputs is None else None
    decision = known or decide_for(scan_known(model, example_inputs), peft_type, preset)
    has_experts = any(layer.role in EXPERT for layer in find_hits(decision.spec, decision.layers))
    if (has_experts and selection.rank_of_experts != "shared") or isinstance(selection.expert_rank, int):
        return _decide_choice(scan_known(model, example_inputs), peft_type, selection)
    if known and logger.isEnabledFor(logging.INFO):
        logger.info("%s: %s", identify(model).reference, decision.describe())
    return decision


def _decide_choice(scan: Scan, peft_type: str, selection: Selection) -> Decision:
    """Decide by a scan, for a selection of its layers."""
    _check_adaptable(scan, peft_type)
    proposal = scan.propose_selection(peft_type, selection)
    says = f"live scan, {replace(selection, preset=proposal.preset)}"
    decision = Decision("scan", proposal.spec, says, proposal.reasons)
    decision = replace(decision, recommended=_recommend(scan, peft_type, proposal.spec))
    logger.info("%s: %s", scan.architecture.reference, decision.describe())
    return replace(
        decision,
        spec=resolve_blocks(proposal.spec, (layer.path for layer in scan.layers)),
        layers=scan.layers,
        frozen=scan.frozen,
        rank=proposal.rank if selection.budget is not None else None,
        rank_pattern=proposal.rank_pattern,
    )


def decide_unscanned(model: nn.Module, preset: str = "default", peft_type: str = PEFT_TYPE) -> Decision | None:
    """Decide as ``decide`` if the registry's entry fits the model's own layers; return ``None`` if a forward is needed.

    Raises:
        UnknownPeftType: As ``decide``.
        UnknownPreset: If ``preset`` is no preset.
    """
    fitted = _fit_entry(model, peft_type, preset)
    if fitted is None:
        return None
    mapping = fitted.mapping
    says = f"registry entry of {_named(mapping)}"
    reasons = _count_apart(mapping, fitted.layers)
    decision = Decision("registry", mapping.spec, says, reasons, fitted.layers, fitted.frozen)
    if mapping.recommended is None:
        return decision
    return replace(decision, recommended=replace(mapping.recommended, formula=None))  # of the size that was scanned


def _fit_entry(model: nn.Module, peft_type: str, preset: str) -> Fit | None:
    static = read_model(model)
    try:
        entry = find_entry(static.facts.architecture, peft_type, preset)
    except DatabaseUnusable:
        return None  # a scan decides, and warns of it
    return fit(entry, model, static) if entry else None


def scan_known(model: nn.Module, example_inputs: Any = None) -> Scan:
    """Scan a model, with the registry's proofs of liveness for a model of the same code and configuration.

    Raises:
        NoAdaptableLayers: If the model has no layer for an adapter.
    """
    return scan_module(model, example_inputs, recall=_recall)


def _recall(architecture: Architecture) -> ArchitectureDetail | None:
    with suppress(DatabaseUnusable, UnknownArchitecture), open_knowledge() as known:
        return known.get_architecture(architecture.library, architecture.name)
    return None


def decide_for(scan: Scan, peft_type: str = PEFT_TYPE, preset: str = "default") -> Decision:
    """Decide as ``decide``, from the result of ``scan_known``."""
    decision = _from_registry(scan, peft_type, preset) or _from_scan(scan, peft_type, preset)
    decision = replace(decision, recommended=_recommend(scan, peft_type, decision.spec))
    logger.info("%s: %s", scan.architecture.reference, decision.describe())
    named = resolve_blocks(decision.spec, (layer.path for layer in scan.layers))
    return replace(decision, spec=named, layers=scan.layers, frozen=scan.frozen)


def _recommend(scan: Scan, peft_type: str, spec: TargetSpec) -> Recommendation | None:
    """Return what the evidence recommends for a scanned model beside the layers of a spec."""
    try:
        wanted = scan.propose(peft_type, RECOMMENDED)
    except (UnknownPreset, MethodDoesNotFit):
        return None
    layers, chosen = find_hits(wanted.spec, scan.layers), find_hits(spec, scan.layers)
    if not layers:
        return None  # heads alone
    structure = Structure.of_layers(scan.layers, {layer.tower for layer in layers}, scan.architecture.class_name)
    more = dict.fromkeys(layer.role for layer in layers if layer not in chosen)
    less = dict.fromkeys(layer.role for layer in chosen if layer not in layers)
    return advise(find_rule(structure), [*more], [*less], wanted.formula)


def expand_shorthand(model: nn.Module, shorthand: str, example_inputs: Any = None) -> TargetSpec:
    """Return the targets of a shorthand such as ``all-linear`` in this model, without heads.

    Of the registry's entries only a scanner's is used: a contributed one of this name may mean other layers.
    """
    fitted = _fit_entry(model, PEFT_TYPE, shorthand) if example_inputs is None else None
    if fitted is not None and fitted.mapping.source.kind == "scanner" and fitted.mapping.library != "torch":
        spec = fitted.mapping.spec
    else:
        scan = scan_known(model, example_inputs)
        spec = add_last_layers(_from_scan(scan, PEFT_TYPE, shorthand).spec, scan)
    if spec.saves_alone:
        warn(spec.describe_saved())
        return spec
    return replace(resolve_blocks(spec), modules_to_save=None)


def _from_registry(scan: Scan, peft_type: str, preset: str) -> Decision | None:
    """Decide by the registry's entry by name, by fingerprint or by structure, if one fits."""
    try:
        with open_knowledge() as known:
            query = (known, scan, peft_type, preset)
            return _by_name(*query) or _by_fingerprint(*query) or _by_structure(*query)
    except DatabaseUnusable as error:
        warn(f"The registry is not used: {error.message}")
        return None


def _by_name(known: Knowledge, scan: Scan, peft_type: str, preset: str) -> Decision | None:
    own = scan.architecture
    mapping = known.find(own.name, peft_type, preset, own.library, own.library_version)
    if mapping is None:
        return None
    detail = known.get_architecture(own.library, own.name)
    says = f"registry entry of {_named(mapping)}"
    if _is_proved(mapping, scan, detail):
        return _fitting("registry", mapping, scan, says)
    narrowed = _without_strays(mapping, scan, detail)
    misfit = _misfit(narrowed, scan) or _describe_unmatched(narrowed, scan, detail)
    if misfit:
        warn(f"The registry's entry for {_named(mapping)} is not used: {misfit}.")
        return None
    return _fitting("registry", narrowed, scan, says)


def _by_fingerprint(known: Knowledge, scan: Scan, peft_type: str, preset: str) -> Decision | None:
    mapping = known.find_by_fingerprint(scan.architecture.fingerprint or "", peft_type, preset)
    if mapping is None:
        return None
    narrowed = _without_strays(mapping, scan, known.get_architecture(mapping.library, mapping.name))
    if _misfit(narrowed, scan):
        return None
    says = f"registry entry of {_named(mapping)}, whose blocks have the same structure and names"
    return _fitting("fingerprint", narrowed, scan, says)


def _by_structure(known: Knowledge, scan: Scan, peft_type: str, preset: str) -> Decision | None:
    """Decide by the first mapping of an architecture of the same structure that fits this model once translated."""
    structure = scan.architecture.structure
    for mapping in known.list_by_structure(structure, peft_type, preset) if structure else ():
        slots = known.get_architecture(mapping.library, mapping.name).slots
        translation = translate(mapping.spec, slots, scan)
        if translation is None or mapping.spec.feedforward_modules:  # a translation mixes them with other targets
            continue
        translated = replace(mapping, **translation.spec.values, reasons=translation.reasons)
        if not _misfit(translated, scan):
            says = f"registry entry of {_named(mapping)}, whose blocks have the same structure under other names"
            return _fitting("structure", translated, scan, says)
    return None


def _fitting(step: Step, mapping: Mapping, scan: Scan, says: str) -> Decision:
    """Return the decision for a mapping, with what is of this model: heads of its task, and what is left out."""
    own = scan.proposals[0].spec.modules_to_save if scan.proposals else None
    reasons = dict.fromkeys((*_count_apart(mapping, scan.layers), *scan.left_out))
    return Decision(step, replace(mapping.spec, modules_to_save=own), says, tuple(reasons))


def _count_apart(mapping: Mapping, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the reasons of an entry, which say so if they count other layers than the model has."""
    if not mapping.reasons or mapping.matched in (None, len(find_hits(mapping.spec, layers))):
        return mapping.reasons
    return (*mapping.reasons, "the layers are counted in the architecture as it was scanned")


def _from_scan(scan: Scan, peft_type: str, preset: str) -> Decision:
    _check_adaptable(scan, peft_type)
    proposal = scan.propose(peft_type, preset)
    return Decision("scan", proposal.spec, f"live scan, preset {preset!r}", proposal.reasons)


def _check_adaptable(scan: Scan, peft_type: str) -> None:
    """Raise ``NoAdaptableLayers`` if nothing is proposed for a model."""
    if not scan.proposals:
        reference = scan.architecture.reference
        classes = sorted({layer.class_name for layer in scan.layers if layer.role != "head"})[:8] or ["a head alone"]
        dead = [layer for layer in scan.layers if layer.live is False]
        why = f" No gradient comes to {len(dead)} of its layers ({dead[0].proof})." if dead else ""
        message = f"{reference} has no layer that {peft_type} can adapt. It holds: {', '.join(classes)}.{why}"
        raise NoAdaptableLayers(message, reference=reference)


def _misfit(mapping: Mapping, scan: Scan) -> str:
    """Explain why a mapping does not fit this model; empty if it fits.

    Layers that it leaves alone by their place in the stack are missed on purpose.
    """
    spec = resolve_blocks(mapping.spec, [layer.path for layer in scan.layers])
    apart = {*find_hits(replace(mapping.spec, exclude_blocks=None), scan.layers)} - {*find_hits(spec, scan.layers)}
    seen = replace(scan, layers=tuple(layer for layer in scan.layers if layer not in apart))
    check = verify(seen, spec, mapping.peft_type, mapping.preset)
    if check.status in ("live", "unproven"):
        return ""
    missing = [repr(target) for target, kinds in check.counts.items() if not kinds]
    if missing:
        return f"{', '.join(missing)} matches no layer of this model"
    return "; ".join(check.findings)


def _is_proved(mapping: Mapping, scan: Scan, known: ArchitectureDetail) -> bool:
    """Return whether a mapping was verified on this model, layer for layer, so that it fits without a check."""
    is_good = mapping.verification is not None and mapping.verification.status in ("live", "unproven")
    return is_good and known.proof is not None and scan.proof == known.proof and _counts(scan) == _counts(known)


def _counts(holder: Scan | ArchitectureDetail) -> Counter[str]:
    """Count the layers by pattern, live or not."""
    return Counter(pattern for slot in holder.slots for pattern in [slot.pattern] * slot.count)


def _describe_unmatched(mapping: Mapping, scan: Scan, known: ArchitectureDetail) -> str:
    """List the layers that the preset selects and an entry does not match, where its architecture had no layer.

    Layers that it had are left out on purpose (PEFT's tables have their own convention). But a scanned entry that
    leaves out a whole tower is of a class with other outputs.
    """
    matched = {layer.path: layer for layer in find_hits(mapping.spec, scan.layers)}
    towers = {layer.tower for layer in matched.values()}
    missed = [layer for layer in _selected(mapping, scan) or () if layer.path not in matched]
    others = [layer for layer in missed if mapping.source.kind == "scanner" and layer.tower not in towers]
    new = sorted({pattern_of(layer.path) for layer in (*_unknown(known, missed), *others)})
    return f"it does not match {', '.join(new[:4])}, which {mapping.preset!r} selects in this model" if new else ""


def _without_strays(mapping: Mapping, scan: Scan, known: ArchitectureDetail) -> Mapping:
    """Exclude layers that an entry matches and the preset does not select, where its architecture had no layer.

    A name that matches the intended layers in a model with one head may match the pooler of a model with another.
    """
    new = [*_unknown(known, find_hits(mapping.spec, scan.layers))]
    layers = _selected(mapping, scan) if new else None
    if layers is None:
        return mapping
    selected = {layer.path for layer in layers}
    strays = [layer.path for layer in new if layer.path not in selected and layer.kind != "expert_parameter"]
    return leave_out(mapping, strays, scan.module_paths)


def _selected(mapping: Mapping, scan: Scan) -> tuple[Layer, ...] | None:
    """Return the layers that a mapping's preset selects in this model; ``None`` if the model has no such preset."""
    try:
        return find_hits(scan.propose(mapping.peft_type, mapping.preset).spec, scan.layers)
    except (UnknownPreset, MethodDoesNotFit):
        return None


def _unknown(known: ArchitectureDetail, layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield the layers for which a registered architecture has no slot."""
    is_known: dict[str, bool] = {}
    for layer in layers:
        pattern = pattern_of(layer.path)
        if pattern not in is_known:
            # Patterns of a base model are shorter than those of a class with a head.
            own, others = f".{pattern}", [f".{slot.pattern}" for slot in known.slots]
            is_known[pattern] = any(own.endswith(other) or other.endswith(own) for other in others)
        if not is_known[pattern]:
            yield layer


def _named(mapping: Mapping) -> str:
    return f"{mapping.library}:{mapping.name} ({mapping.source.kind} {mapping.source.version})"


def with_ranks(config: AdapterConfig, decision: Decision) -> AdapterConfig:
    """Return a configuration with the ranks of a decision; patterns of its own come first."""
    if not isinstance(config, LoraConfig) or (decision.rank is None and not decision.rank_pattern):
        return config
    rank, patterns = decision.rank or config.r, decision.rank_pattern or {}
    alphas = scale_alphas(patterns, rank, config.lora_alpha, 0.5 if config.use_rslora else 1)
    return replace(
        config,
        r=rank,
        rank_pattern={**config.rank_pattern, **{k: v for k, v in patterns.items() if k not in config.rank_pattern}},
        alpha_pattern={**config.alpha_pattern, **{k: v for k, v in alphas.items() if k not in config.alpha_pattern}},
    )
