"""The targets that a configuration would have without its faults, in the form that its project takes."""

import re
from collections.abc import Sequence

from ...domain.layers import Layer
from ...domain.patterns import name_targets, name_with_exclusion
from ...domain.targets import Targets, TargetSpec, find_hits
from .faults import Fault
from .hits import Hits, find_leaves, without

_ELSEWHERE = {"nothing", "tower"}
"""Faults of targets that are left out, whatever is adapted instead."""


def correct(hits: Hits, faults: Sequence[Fault]) -> TargetSpec | None:
    """Return targets that match the layers meant, and no others; ``None`` if the faults have no other targets.

    A project that takes names alone gets those that the layers end with, if they match nothing else.
    """
    saved = _name_saved(hits, faults)
    if not any(fault.added or fault.dropped or fault.finding.code in _ELSEWHERE for fault in faults):
        return TargetSpec(modules_to_save=saved) if saved else None
    wanted = _list_wanted(hits, faults)
    modules = [layer for layer in wanted if layer.kind != "expert_parameter"]
    targets, excluded = _name(hits, modules) if modules else (None, None)
    if targets is None and modules:
        return None
    experts = (".".join(layer.path.split(".")[-2:]) for layer in wanted if layer.kind == "expert_parameter")
    parameters = tuple(dict.fromkeys(experts)) if hits.part.project.parameters else ()
    return TargetSpec(targets, excluded, saved, parameters or None)


def _list_wanted(hits: Hits, faults: Sequence[Fault]) -> list[Layer]:
    """Return the layers to adapt: those that are matched without a fault, and those that the faults add."""
    dropped = {layer.path for fault in faults for layer in fault.dropped}
    kept = {layer.path: layer for layer in without(hits.layers.values(), dropped)}
    kept |= {layer.path: layer for fault in faults for layer in fault.added}
    return [*kept.values()] or [*hits.subject.adaptable]


def _name_saved(hits: Hits, faults: Sequence[Fault]) -> tuple[str, ...] | None:
    """Return the modules to train in full, if a fault adds any: these, and those stated without a fault."""
    added = [name for fault in faults for name in fault.saved]
    wrong = {fault.finding.line for fault in faults if fault.saved}
    stated = [name.text for name in hits.part.saved if name.line not in wrong]
    return tuple(dict.fromkeys((*stated, *added))) if added else None


def _name(hits: Hits, wanted: Sequence[Layer]) -> tuple[Targets | None, Targets | None]:
    project, paths = hits.part.project, [layer.path for layer in wanted]
    modules = hits.subject.stored.modules
    if project.names:
        roles = {layer.role for layer in wanted}
        return tuple(name for name, known in project.names.items() if not roles.isdisjoint(known)) or None, None
    targets = name_targets(paths, modules)
    if isinstance(targets, tuple):
        return (rf".*\.{re.escape(targets[0])}" if project.single and not targets[1:] else targets), None
    if project.excluded:
        return name_with_exclusion(paths, modules)
    is_taken = project.regex or "regex" in project.takes
    return targets if is_taken else _name_by_ends(hits, wanted), None


def _name_by_ends(hits: Hits, wanted: Sequence[Layer]) -> tuple[str, ...] | None:
    """Return the last names of the paths of layers, for a project that takes no regex, if they match nothing else."""
    names, paths = find_leaves(wanted), {layer.path for layer in wanted}
    found = find_hits(TargetSpec(names), hits.subject.layers)
    others = [x for x in found if x.path not in paths and x.tower not in hits.frozen]
    return None if others else names
