"""Where an adapter goes when nobody says: registry by name, by fingerprint, by structure, live scan, in that order."""

import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import nn

from ..discovery import scan_module
from ..errors import DatabaseUnusable, InvalidConfig, NoAdaptableLayers
from ..mappings import Mapping
from ..records import Layer, Scan
from ..registry import Registry, verify
from ..targets import TargetSpec
from .translate import translate

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
        layers: What a scan of this very model found, whichever step decided: role and evidence of each layer, of the
            adapted ones alone once the adapter is in; empty if nothing was scanned.
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


def decide(model: nn.Module, preset: str = "default") -> Decision:
    """Decide where an adapter goes in ``model``; every registry answer is checked against this very model.

    An answer that does not fit is never used silently: a warning says what is wrong with it.

    Raises:
        UnknownPreset: If ``preset`` is no preset, or one this model has nothing for.
        NoAdaptableLayers: If there is no layer for an adapter.
    """
    decision = decide_for(scan_module(model), preset=preset)
    return replace(decision, spec=_adaptable_now(decision.spec, preset))


def decide_for(found: Scan, peft_type: str = PEFT_TYPE, preset: str = "default") -> Decision:
    """Decide where the adapters of any PEFT method go in the model that was scanned, fused experts included.

    Raises:
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: As ``decide``.
        NoAdaptableLayers: As ``decide``.
        MethodDoesNotFit: If the method can adapt nothing of this model.
    """
    decision = _from_registry(found, peft_type, preset) or _from_scan(found, peft_type, preset)
    logger.info("%s: %s", found.architecture.reference, decision.says)
    return replace(decision, layers=found.layers)


def expand_shorthand(model: nn.Module, shorthand: str) -> TargetSpec:
    """Return the targets a shorthand such as ``all-linear`` stands for in this model, heads not included."""
    spec = _adaptable_now(_from_scan(scan_module(model), PEFT_TYPE, shorthand).spec, shorthand)
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
    known = found.architecture
    version = known.library_version
    mapping = registry.find(known.name, peft_type, preset, known.library, version)
    if mapping is None:
        return None
    misfit = _misfit(mapping, found)
    if misfit:
        warnings.warn(f"The registry's entry for {_named(mapping)} is not used: {misfit}.", stacklevel=6)
        return None
    return _fitting("registry", mapping, found, f"registry entry of {_named(mapping)}")


def _by_fingerprint(registry: Registry, found: Scan, peft_type: str, preset: str) -> Decision | None:
    mapping = registry.find_by_fingerprint(found.architecture.fingerprint or "", peft_type, preset)
    if mapping is None or _misfit(mapping, found):
        return None
    says = f"registry entry of {_named(mapping)}, whose blocks have the same structure and names"
    return _fitting("fingerprint", mapping, found, says)


def _by_structure(registry: Registry, found: Scan, peft_type: str, preset: str) -> Decision | None:
    """Take the first mapping of an architecture so built that can be said in this model's names and fits it."""
    structure = found.architecture.structure
    for mapping in registry.list_by_structure(structure, peft_type, preset) if structure else ():
        slots = registry.get_architecture(mapping.library, mapping.name).slots
        translation = translate(mapping.spec, slots, found)
        if translation is None or mapping.spec.feedforward_modules:  # which of two kinds of target, is not translated
            continue
        said = replace(mapping, spec=translation.spec, reasons=translation.reasons)
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
        message = f"{reference} has no layer that {peft_type} can adapt. It holds: {_classes(found)}."
        raise NoAdaptableLayers(message, reference=reference)
    proposal = found.propose(peft_type, preset)
    return Decision("scan", proposal.spec, f"live scan, preset {preset!r}", proposal.reasons)


def _adaptable_now(spec: TargetSpec, preset: str) -> TargetSpec:
    """Leave fused experts out, aloud: there are no adapters for bare parameters in this version."""
    if not spec.target_parameters:
        return spec
    experts = ", ".join(spec.target_parameters[:4])
    if spec.target_modules is None:
        message = f"Preset {preset!r} is fused experts alone here ({experts}), which loradar cannot adapt yet."
        raise InvalidConfig(f"{message} Use preset 'attention'.", target_parameters=list(spec.target_parameters))
    warnings.warn(f"Fused experts ({experts}) get no adapter: loradar cannot adapt them yet.", stacklevel=4)
    return replace(spec, target_parameters=None)


def _misfit(mapping: Mapping, found: Scan) -> str:
    """Return what of a mapping does not fit this model; empty if all of it does."""
    check = verify(found, mapping.spec, mapping.peft_type)
    if check.status in ("live", "unproven"):
        return ""
    missing = [repr(target) for target, kinds in check.counts.items() if not kinds]
    if missing:
        return f"{', '.join(missing)} matches no layer of this model"
    return f"it reaches what should be left alone in this model ({check.counts})"


def _named(mapping: Mapping) -> str:
    return f"{mapping.library}:{mapping.name} ({mapping.source.kind} {mapping.source.version})"


def _classes(found: Scan) -> str:
    """Return the classes of the layers, heads aside."""
    return ", ".join(sorted({layer.class_name for layer in found.layers if layer.role != "head"})[:8]) or "a head alone"
