"""The targets of a mapping as a tool can state them, and in words those that it cannot."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..domain.choosing.stored_layers import StoredLayers
from ..domain.mappings import Mapping
from ..domain.patterns import name_leaves, name_targets, pattern_of
from ..domain.targets import Targets, TargetSpec, find_hits, resolve_blocks, without_exclusion
from ..domain.vocabulary import list_some
from .tools import Tool

DEFAULT_ALPHA = 8
"""PEFT's ``lora_alpha``, for which the patterns of a mapping are stated."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement of a mapping in a tool's own fields.

    Attributes:
        values: The fields of a target spec and the patterns of ranks, those that are set.
        switches: Keys that keep adapters off towers, or do not.
        notes: What it cannot state, in words.
    """

    values: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def state(mapping: Mapping, tool: Tool, stored: StoredLayers, alpha: int) -> Statement:
    """Return the statement of a mapping in a tool's own fields.

    Args:
        mapping: The mapping.
        tool: The tool.
        stored: The layers of its architecture; none if they are not known.
        alpha: The common ``lora_alpha``, which the alphas of single layers follow.
    """
    spec = resolve_blocks(mapping.spec)
    wanted = [layer for layer in find_hits(spec, stored.sizes) if layer.kind != "expert_parameter"]
    switches = dict(_list_switches(tool, spec, stored))
    spec, notes = _state_targets(tool, spec, stored, switches)
    values = {name: value for name, value in spec.values.items() if value}
    if "fan_in_fan_out" in tool.states and wanted and all(layer.kind == "transposed_linear" for layer in wanted):
        values["fan_in_fan_out"] = True
    values |= _scale_patterns(mapping, alpha)
    values, lacking = _leave_out(tool, values)
    values, rounded = _round(tool, values)
    return Statement(values, switches, (*notes, *lacking, *rounded))


def _state_targets(
    tool: Tool, spec: TargetSpec, stored: StoredLayers, switches: dict[str, bool]
) -> tuple[TargetSpec, list[str]]:
    """Return a spec in the form that a tool takes: names alone, or a regex in place of an exclusion."""
    is_plain = isinstance(spec.target_modules, tuple) and not spec.exclude_modules
    if "regex" not in tool.states and not (is_plain or spec.saves_alone):
        return _name_alone(tool, spec, stored, switches)
    if "exclude_modules" in tool.states or not spec.exclude_modules:
        return spec, []
    paths = [layer.path for layer in find_hits(spec, stored.sizes) if layer.kind != "expert_parameter"]
    if not paths:
        return without_exclusion(spec), []
    return replace(spec, target_modules=name_targets(paths, stored.modules), exclude_modules=None), []


def _list_switches(tool: Tool, spec: TargetSpec, stored: StoredLayers) -> Iterator[tuple[str, bool]]:
    """Yield the keys for the towers of a model of several, with whether they get no adapter."""
    layers = [*stored.sizes]
    towers = {layer.tower for layer in layers}
    adapted = {layer.tower for layer in find_hits(spec, layers)}
    if len(towers) > 1:
        for rule in tool.freezes:
            if not towers.isdisjoint(rule["towers"]):
                yield rule["key"], adapted.isdisjoint(rule["towers"])


def _name_alone(
    tool: Tool, spec: TargetSpec, stored: StoredLayers, switches: dict[str, bool]
) -> tuple[TargetSpec, list[str]]:
    """Return a spec for a tool that takes names alone, and a note if these match other layers as well."""
    layers = [*stored.sizes]
    wanted = [layer for layer in find_hits(spec, layers) if layer.kind != "expert_parameter"]
    if not wanted:
        note = f"{tool.label} takes names of layers alone, and these targets need a regex or an exclusion"
        return replace(spec, target_modules=None, exclude_modules=None), [f"{note}: it cannot state them"]
    names = name_leaves(layer.path for layer in wanted)
    frozen = {tower for rule in tool.freezes if switches.get(rule["key"]) for tower in rule["towers"]}
    paths = {layer.path for layer in wanted}
    found = find_hits(TargetSpec(names), layers)
    others = {pattern_of(layer.path): None for layer in found if layer.path not in paths and layer.tower not in frozen}
    note = f"{tool.label} takes names of layers alone, and these match others too: {list_some([*others])}"
    return replace(spec, target_modules=names, exclude_modules=None), [note] if others else []


def _scale_patterns(mapping: Mapping, alpha: int) -> dict[str, dict[str, float]]:
    """Return the ranks and alphas of single layers; the alphas in proportion to the common one."""
    ranks, alphas = dict(mapping.rank_pattern or {}), dict(mapping.alpha_pattern or {})
    scaled = {pattern: value * alpha / DEFAULT_ALPHA for pattern, value in alphas.items()}
    whole = {pattern: int(value) if value == int(value) else value for pattern, value in scaled.items()}
    found: dict[str, dict[str, float]] = {"rank_pattern": dict(ranks), "alpha_pattern": whole}
    return {name: value for name, value in found.items() if value}


def _leave_out(tool: Tool, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that a tool has a key for, and in words the others."""
    kept, notes = dict(values), []
    for name, describe in _OPTIONAL.items():
        lacking = kept.pop(name, None) if name not in tool.states else None
        if lacking:
            notes.append(f"{tool.label} has no key for {name}: {describe(lacking)}")
        if lacking and name == "target_parameters":
            kept = _without_patterns(kept, lacking)
    return kept, notes


def _round(tool: Tool, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a tool that takes integers alone in some fields, and in words those that are none."""
    kept, notes = dict(values), []
    for name in tool.integers:
        fractions = {key: one for key, one in kept.get(name, {}).items() if one != int(one)}
        if fractions:
            notes.append(f"{tool.label} takes integers for {name} alone, and not {_pair(fractions)}")
            kept[name] = {key: max(1, round(one)) for key, one in kept[name].items()}
    return kept, notes


def _without_patterns(values: dict[str, Any], parameters: Targets) -> dict[str, Any]:
    """Return values without the ranks and alphas of parameters that get no adapter."""
    names = [parameters] if isinstance(parameters, str) else parameters
    for field_name in _PATTERNS:
        ranks = values.get(field_name, {})
        others = {
            key: one for key, one in ranks.items() if not any(re.fullmatch(rf"(?:.*\.)?(?:{key})", x) for x in names)
        }
        values = {**values, field_name: others}
    return {name: value for name, value in values.items() if value}


_PATTERNS = ("rank_pattern", "alpha_pattern")


def _show(names: Targets) -> str:
    return names if isinstance(names, str) else list_some(names)


_OPTIONAL: dict[str, Callable[[Any], str]] = {
    "target_parameters": lambda names: f"{_show(names)} get no adapter here",
    "modules_to_save": lambda names: f"{_show(names)} are not trained here",
    "feedforward_modules": lambda names: f"{_show(names)} are scaled at the output here",
    "rank_pattern": lambda ranks: f"these layers would have another rank, {_pair(ranks)}",
    "alpha_pattern": lambda alphas: f"these layers would have another alpha, {_pair(alphas)}",
}
"""Fields that a tool may lack, and what that means."""


def _pair(values: dict[str, float]) -> str:
    return ", ".join(f"{pattern}: {value:g}" for pattern, value in values.items())


def choose_alpha(mapping: Mapping) -> int:
    """Return ``lora_alpha`` in the proportion to the rank that the recommendation starts with; else PEFT's."""
    recipe = mapping.recommended.recipe if mapping.recommended else None
    return max(1, round(mapping.rank * recipe.alpha / recipe.rank)) if recipe else DEFAULT_ALPHA
