"""Where an adapter goes when nobody says: registry by name, by fingerprint, by structure, live scan, in that order.

The registry is asked by name with the model's own layers. Only where its entry does not fit, or there is none, does a
forward run, and all four steps are gone through with what it shows.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import nn

from ..discovery import identify, read_model, scan_module
from ..domain.architectures import Architecture
from ..domain.layers import Layer, Slot
from ..domain.mappings import Mapping
from ..domain.methods import get_method
from ..domain.patterns import name_targets, pattern_of
from ..domain.scans import Scan
from ..domain.summaries import ArchitectureDetail
from ..domain.targets import TargetSpec, excluding, find_hits, without_exclusion
from ..errors import DatabaseUnusable, MethodDoesNotFit, NoAdaptableLayers, UnknownArchitecture, UnknownPreset
from ..registry import Registry, verify
from .fit import Fit, fit
from .known import find_entry
from .translation import translate

logger = logging.getLogger("loradar")

Step = Literal["config", "registry", "fingerprint", "structure", "scan"]
PEFT_TYPE = "LORA"


@dataclass(frozen=True, slots=True)
class Decision:
    """Where an adapter goes and which step decided it.

    Attributes:
        step: ``config`` (given), ``registry`` (by name), ``fingerprint`` (the registry's entry of an architecture with
            the same layers under the same names), ``structure`` (the same under other names) or ``scan`` (live).
        spec: The targets decided on.
        says: The decision in words.
        reasons: Why these layers, in words.
        layers: The layers the decision rests on, with role and evidence: what is on record of the layers adapted, if
            the registry's entry fitted; what the scan of this very model found, if there was one, of the adapted ones
            alone once the adapter is in; else empty.
    """

    step: Step
    spec: TargetSpec
    says: str
    reasons: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()

    def about(self, paths: Collection[str]) -> Self:
        """Return the decision with the layers at these paths alone."""
        asked = frozenset(paths)
        return replace(self, layers=tuple(layer for layer in self.layers if layer.path in asked))


def decide(model: nn.Module, preset: str = "default", peft_type: str = PEFT_TYPE) -> Decision:
    """Decide where the adapters of a PEFT method go in ``model``: its modules, and its fused experts as parameters.

    Every registry answer is checked against this very model. One that does not fit is never used silently: a warning
    says what is wrong with it.

    Raises:
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If ``preset`` is no preset of the method, or one this model has nothing for.
        NoAdaptableLayers: If there is no layer for an adapter.
        MethodDoesNotFit: If the method can adapt nothing of this model.
    """
    decision = decide_unscanned(model, preset, peft_type)
    if decision is None:
        return decide_for(scan_known(model), peft_type, preset)
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s: %s", identify(model).reference, decision.says)
    return decision


def decide_unscanned(model: nn.Module, preset: str = "default", peft_type: str = PEFT_TYPE) -> Decision | None:
    """Decide as ``decide`` if the registry's entry fits the model's own layers; ``None`` if a forward has to run.

    Raises:
        UnknownPeftType: As ``decide``.
        UnknownPreset: If ``preset`` is no preset.
    """
    fitted = _fit_entry(model, peft_type, preset)
    if fitted is None:
        return None
    mapping = fitted.mapping
    spec = replace(mapping.spec, modules_to_save=fitted.modules_to_save)
    return Decision("registry", spec, f"registry entry of {_named(mapping)}", mapping.reasons, fitted.layers)


def _fit_entry(model: nn.Module, peft_type: str, preset: str) -> Fit | None:
    static = read_model(model)
    try:
        entry = find_entry(static.facts.architecture, peft_type, preset)
    except DatabaseUnusable:
        return None  # a scan decides, and warns of it
    return fit(entry, model, static) if entry else None


def scan_known(model: nn.Module) -> Scan:
    """Scan a model, and take over from the registry what was proved of one that is built alike.

    Raises:
        NoAdaptableLayers: If it has no layer for an adapter.
    """
    return scan_module(model, recall=_recall)


def _recall(architecture: Architecture) -> ArchitectureDetail | None:
    with suppress(DatabaseUnusable, UnknownArchitecture), Registry.open() as registry:
        return registry.get_architecture(architecture.library, architecture.name)
    return None


def decide_for(found: Scan, peft_type: str = PEFT_TYPE, preset: str = "default") -> Decision:
    """Decide as ``decide``, of a model that was scanned with ``scan_known``."""
    decision = _from_registry(found, peft_type, preset) or _from_scan(found, peft_type, preset)
    logger.info("%s: %s", found.architecture.reference, decision.says)
    return replace(decision, layers=found.layers)


def expand_shorthand(model: nn.Module, shorthand: str) -> TargetSpec:
    """Return the targets a shorthand such as ``all-linear`` stands for in this model, heads not included.

    The registry decides by what a scan found alone: a contributed entry of this name may mean something else.
    """
    fitted = _fit_entry(model, PEFT_TYPE, shorthand)
    is_scanned = fitted is not None and fitted.mapping.source.kind == "scanner"
    spec = fitted.mapping.spec if fitted and is_scanned else _from_scan(scan_known(model), PEFT_TYPE, shorthand).spec
    return replace(spec, modules_to_save=None)


def _from_registry(found: Scan, peft_type: str, preset: str) -> Decision | None:
    """Return the registry's answer by name, by fingerprint or by structure, if it has one that fits."""
    try:
        with Registry.open() as registry:
            asked = (registry, found, peft_type, preset)
            return _by_name(*asked) or _by_fingerprint(*asked) or _by_structure(*asked)
    except DatabaseUnusable as error:
        warnings.warn(f"The registry is not asked: {error.message}", stacklevel=5)
        return None


def _by_name(registry: Registry, found: Scan, peft_type: str, preset: str) -> Decision | None:
    asked = found.architecture
    mapping = registry.find(asked.name, peft_type, preset, asked.library, asked.library_version)
    if mapping is None:
        return None
    known = registry.get_architecture(asked.library, asked.name)
    says = f"registry entry of {_named(mapping)}"
    if _is_proved(mapping, found, known):
        return _fitting("registry", mapping, found, says)
    narrowed = _without_strays(mapping, found, known)
    misfit = _misfit(narrowed, found) or _unreached(narrowed, found, known)
    if misfit:
        warnings.warn(f"The registry's entry for {_named(mapping)} is not used: {misfit}.", stacklevel=6)
        return None
    return _fitting("registry", narrowed, found, says)


def _by_fingerprint(registry: Registry, found: Scan, peft_type: str, preset: str) -> Decision | None:
    mapping = registry.find_by_fingerprint(found.architecture.fingerprint or "", peft_type, preset)
    if mapping is None:
        return None
    narrowed = _without_strays(mapping, found, registry.get_architecture(mapping.library, mapping.name))
    if _misfit(narrowed, found):
        return None
    says = f"registry entry of {_named(mapping)}, whose blocks have the same structure and names"
    return _fitting("fingerprint", narrowed, found, says)


def _by_structure(registry: Registry, found: Scan, peft_type: str, preset: str) -> Decision | None:
    """Take the first mapping of an architecture so built that can be said in this model's names and fits it."""
    structure = found.architecture.structure
    for mapping in registry.list_by_structure(structure, peft_type, preset) if structure else ():
        slots = registry.get_architecture(mapping.library, mapping.name).slots
        translation = translate(mapping.spec, slots, found)
        if translation is None or mapping.spec.feedforward_modules:  # which of two kinds of target, is not translated
            continue
        said = replace(mapping, **translation.spec.values, reasons=translation.reasons)
        if not _misfit(said, found):
            says = f"registry entry of {_named(mapping)}, whose blocks have the same structure under other names"
            return _fitting("structure", said, found, says)
    return None


def _fitting(step: Step, mapping: Mapping, found: Scan, says: str) -> Decision:
    """Take the layers from the registry and the heads to save from this model, which may be another task's class."""
    own = found.proposals[0].spec.modules_to_save if found.proposals else None
    return Decision(step, replace(mapping.spec, modules_to_save=own), says, mapping.reasons)


def _from_scan(found: Scan, peft_type: str, preset: str) -> Decision:
    if not found.proposals:
        reference = found.architecture.reference
        held = sorted({layer.class_name for layer in found.layers if layer.role != "head"})[:8] or ["a head alone"]
        dead = sum(layer.live is False for layer in found.layers)
        why = f" No gradient comes to {dead} of its layers." if dead else ""
        message = f"{reference} has no layer that {peft_type} can adapt. It holds: {', '.join(held)}.{why}"
        raise NoAdaptableLayers(message, reference=reference)
    proposal = found.propose(peft_type, preset)
    return Decision("scan", proposal.spec, f"live scan, preset {preset!r}", proposal.reasons)


def _misfit(mapping: Mapping, found: Scan) -> str:
    """Return what of a mapping does not fit this model; empty if all of it does."""
    check = verify(found, mapping.spec, mapping.peft_type, mapping.preset)
    if check.status in ("live", "unproven"):
        return ""
    missing = [repr(target) for target, kinds in check.counts.items() if not kinds]
    if missing:
        return f"{', '.join(missing)} matches no layer of this model"
    return "; ".join(check.findings)


def _is_proved(mapping: Mapping, found: Scan, known: ArchitectureDetail) -> bool:
    """Tell whether a mapping was proved on this model, layer for layer; then its verification holds as it stands."""
    is_good = mapping.verification is not None and mapping.verification.status in ("live", "unproven")
    return is_good and known.proof is not None and found.proof == known.proof and _counts(found) == _counts(known)


def _counts(holder: Scan | ArchitectureDetail) -> Counter[str]:
    """Return how many layers stand where, whatever was proved of them."""
    return Counter(pattern for slot in holder.slots for pattern in [slot.pattern] * slot.count)


def _unreached(mapping: Mapping, found: Scan, known: ArchitectureDetail) -> str:
    """Return what the preset takes and an entry does not, where its architecture had no layer when it was made.

    What stood there was left out on purpose (PEFT's tables have their own convention); of the rest nobody thought.
    """
    reached = {layer.path for layer in find_hits(mapping.spec, found.layers)}
    missed = [layer for layer in _taken(mapping, found) or () if layer.path not in reached]
    new = sorted({pattern_of(layer.path) for layer in _unknown(known, missed)})
    return f"it does not reach {', '.join(new[:4])}, which {mapping.preset!r} takes in this model" if new else ""


def _without_strays(mapping: Mapping, found: Scan, known: ArchitectureDetail) -> Mapping:
    """Exclude what an entry hits and the preset does not take, where its architecture had no layer when it was made.

    A name that hits just the layers meant in a model with one head may hit the pooler of a model with another.
    """
    new = [*_unknown(known, find_hits(mapping.spec, found.layers))]
    taken = _taken(mapping, found) if new else None
    if taken is None:
        return mapping
    meant = {layer.path for layer in taken}
    strays = [layer.path for layer in new if layer.path not in meant and layer.kind != "expert_parameter"]
    if not strays:
        return mapping
    spec = excluding(mapping.spec, name_targets(strays, found.module_paths))
    spec = spec if get_method(mapping.peft_type).exclusion else without_exclusion(spec)
    told = f"left out: {', '.join(dict.fromkeys(map(pattern_of, strays)))}, where the entry knew no layer"
    return replace(mapping, **spec.values, reasons=(*mapping.reasons, told))


def _taken(mapping: Mapping, found: Scan) -> tuple[Layer, ...] | None:
    """Return what a mapping's preset takes in this model by itself; ``None`` if it has no such preset."""
    try:
        return find_hits(found.propose(mapping.peft_type, mapping.preset).spec, found.layers)
    except (UnknownPreset, MethodDoesNotFit):
        return None


def _unknown(known: ArchitectureDetail, layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield the layers that stand where a registered architecture had none."""
    is_known: dict[str, bool] = {}
    for layer in layers:
        pattern = pattern_of(layer.path)
        if pattern not in is_known:
            is_known[pattern] = any(_is_same_place(pattern, slot) for slot in known.slots)
        if not is_known[pattern]:
            yield layer


def _is_same_place(pattern: str, slot: Slot) -> bool:
    """Compare patterns; a base model's are shorter than those of the class with a head."""
    return f".{pattern}".endswith(f".{slot.pattern}") or f".{slot.pattern}".endswith(f".{pattern}")


def _named(mapping: Mapping) -> str:
    return f"{mapping.library}:{mapping.name} ({mapping.source.kind} {mapping.source.version})"
