"""A target spec told in the names of one architecture, said again in those of another of the same structure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..domain.layers import Slot
from ..domain.patterns import name_targets, pattern_of
from ..domain.scans import Scan
from ..domain.targets import TargetMatcher, TargetSpec

NO_PLACE = ("norm", "head", "projector")
"""Roles that no structure counts, so that two of the same may have another number of them."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A spec in another model's names, and which of its layers stands for which."""

    spec: TargetSpec
    reasons: tuple[str, ...]


def translate(spec: TargetSpec, known: Iterable[Slot], found: Scan) -> Translation | None:
    """Say ``spec`` in the names of ``found``, slot by slot, in the order in which both models hold them.

    Args:
        spec: What is on record for the known architecture.
        known: Its slots.
        found: A scan with the same structure.

    Returns:
        ``None`` if the slots do not pair one to one, or ``spec`` takes part of a slot: an index has no counterpart.
    """
    ours, theirs = _places(known), _places(found.slots)
    if [slot.kind for slot in ours] != [slot.kind for slot in theirs]:
        return None
    pairs = [*zip(ours, theirs, strict=True)]
    shares = [_share(spec, old) for old in ours]
    hit = [pair for pair, share in zip(pairs, shares, strict=True) if share]
    if not hit or not {*shares} <= {0.0, 1.0} or any(old.role != new.role for old, new in hit):
        return None
    reasons = tuple(f"{new.pattern} stands for {old.pattern} ({new.role})" for old, new in hit)
    return Translation(_name(found, {new.pattern for _, new in hit}), reasons)


def _places(slots: Iterable[Slot]) -> list[Slot]:
    """Return the slots that can be paired, one per pattern: those in blocks that a structure counts."""
    places: dict[str, Slot] = {}
    for slot in slots:
        if "*" in slot.pattern and slot.kind not in ("norm", "embedding") and slot.role not in NO_PLACE:
            places.setdefault(slot.pattern, slot)
    return [*places.values()]


def _share(spec: TargetSpec, slot: Slot) -> float:
    """Return the share of a slot's layers that a spec takes, tried with the indices it names and two others."""
    targets = spec.target_parameters if slot.kind == "expert_parameter" else spec.target_modules
    named, excluded = TargetMatcher(targets or ()), TargetMatcher(spec.exclude_modules or ())
    indices = {"0", "1", *re.findall(r"\d+", f"{targets} {spec.exclude_modules}")}
    paths = [slot.pattern.replace("*", index) for index in indices]
    return sum(named.find(path) is not None and excluded.find(path) is None for path in paths) / len(paths)


def _name(found: Scan, patterns: set[str]) -> TargetSpec:
    wanted = [layer for layer in found.layers if pattern_of(layer.path) in patterns]
    modules = [layer.path for layer in wanted if layer.kind != "expert_parameter"]
    parameters = [layer.path for layer in wanted if layer.kind == "expert_parameter"]
    names = name_targets(parameters, [*found.module_paths, *parameters])
    return TargetSpec(
        target_modules=name_targets(modules, found.module_paths) if modules else None,
        # PEFT's target_parameters takes suffixes and whole paths, but no regex.
        target_parameters=(names if isinstance(names, tuple) else tuple(parameters)) or None,
    )
