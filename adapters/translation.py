"""Translate targets to the names of another architecture with the same structure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..domain.layers import Layer, Slot
from ..domain.patterns import name_targets, pattern_of
from ..domain.scans import Scan
from ..domain.targets import TargetMatcher, TargetSpec, find_hits

LINEAR_KINDS = ("linear", "transposed_linear")
UNCOUNTED = ("norm", "head", "projector")
"""Roles that are no part of a structure, so that their numbers may differ."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A spec in another model's names, and the pairs of slots behind it, in words."""

    spec: TargetSpec
    reasons: tuple[str, ...]


def translate(spec: TargetSpec, known: Iterable[Slot], scan: Scan) -> Translation | None:
    """Translate ``spec`` slot by slot, in the order of both models' slots.

    Args:
        spec: The targets in the known architecture.
        known: Its slots.
        scan: A scan of a model with the same structure.

    Returns:
        ``None`` if the slots do not pair one to one, or ``spec`` matches part of a slot: an index has no counterpart.
    """
    ours, theirs = _paired(known), _paired(scan.slots)
    if [slot.kind for slot in ours] != [slot.kind for slot in theirs]:
        return None
    pairs = [*zip(ours, theirs, strict=True)]
    shares = [_share(spec, old) for old in ours]
    matched = [pair for pair, share in zip(pairs, shares, strict=True) if share]
    is_whole = not spec.exclude_blocks and {*shares} <= {0.0, 1.0}
    if not matched or not is_whole or any(old.role != new.role for old, new in matched):
        return None
    reasons = tuple(f"{new.pattern} stands for {old.pattern} ({new.role})" for old, new in matched)
    return Translation(_select(scan, {new.pattern for _, new in matched}), reasons)


def _paired(slots: Iterable[Slot]) -> list[Slot]:
    """Return the slots to pair, one per pattern: those in blocks that are part of a structure."""
    by_pattern: dict[str, Slot] = {}
    for slot in slots:
        if "*" in slot.pattern and slot.kind not in ("norm", "embedding") and slot.role not in UNCOUNTED:
            by_pattern.setdefault(slot.pattern, slot)
    return [*by_pattern.values()]


def _share(spec: TargetSpec, slot: Slot) -> float:
    """Return the share of a slot's layers that a spec matches, from the indices in the spec and two others."""
    targets = spec.target_parameters if slot.kind == "expert_parameter" else spec.target_modules
    named, excluded = TargetMatcher(targets or ()), TargetMatcher(spec.exclude_modules or ())
    indices = {"0", "1", *re.findall(r"\d+", f"{targets} {spec.exclude_modules}")}
    paths = [slot.pattern.replace("*", index) for index in indices]
    return sum(named.find(path) is not None and excluded.find(path) is None for path in paths) / len(paths)


def _select(scan: Scan, patterns: set[str]) -> TargetSpec:
    """Return the spec that matches the layers with these patterns."""
    return _name(scan, [layer for layer in scan.layers if pattern_of(layer.path) in patterns])


def add_last_layers(spec: TargetSpec, scan: Scan) -> TargetSpec:
    """Return the targets of all linears with the last ones of a user's own module, which PEFT adapts too.

    That they write the output does not make them heads. A layer over a vocabulary is one: tied to an embedding, or with
    one output for each of its rows. A model of a library declares its heads.
    """
    if scan.architecture.library != "torch" or spec.saves_alone:
        return spec
    rows = {layer.shape[0] for layer in scan.layers if layer.kind == "embedding"}
    tied = {layer.tied_to for layer in scan.layers}
    last = [
        layer
        for layer in scan.layers
        if layer.role == "head" and layer.kind in LINEAR_KINDS and layer.out_features not in rows
        if not layer.tied_to and layer.path not in tied
    ]
    return _name(scan, [*find_hits(spec, scan.layers), *last]) if last else spec


def _name(scan: Scan, wanted: list[Layer]) -> TargetSpec:
    """Return the spec that matches these layers."""
    modules = [layer.path for layer in wanted if layer.kind != "expert_parameter"]
    parameters = [layer.path for layer in wanted if layer.kind == "expert_parameter"]
    names = name_targets(parameters, [*scan.module_paths, *parameters])
    return TargetSpec(
        target_modules=name_targets(modules, scan.module_paths) if modules else None,
        # PEFT's target_parameters takes suffixes and whole paths, but no regex.
        target_parameters=(names if isinstance(names, tuple) else tuple(parameters)) or None,
    )
