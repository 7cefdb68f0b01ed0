"""Choices of layers: what a method adapts in a model, and the names by which PEFT finds exactly these layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from .methods import get_method
from .patterns import name_targets, name_with_exclusion
from .scans import Layer
from .targets import Targets, TargetSpec
from .vocabulary import Preset, Role

ROLE_ORDER: dict[str, int] = {role: position for position, role in enumerate(get_args(Role))}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a family of methods adapts in a model.

    Attributes:
        family: Its name, which is that of its first method.
        layers: What it adapts.
        why: Why these, in words.
        feedforward: Those of them that IA3 scales at the input.
    """

    family: str
    layers: tuple[Layer, ...]
    why: str
    preset: Preset = "default"
    feedforward: tuple[Layer, ...] = ()

    @property
    def ordered(self) -> list[Layer]:
        """The layers by role, in the order of the roles."""
        return sorted(self.layers, key=lambda layer: ROLE_ORDER[layer.role])


def make_spec(
    choice: Choice, module_paths: Sequence[str], parameter_paths: Sequence[str], saved: tuple[str, ...]
) -> TargetSpec:
    """Return the shortest spec that hits exactly the layers of a choice."""
    modules = [layer.path for layer in choice.ordered if layer.kind != "expert_parameter"]
    parameters = [layer.path for layer in choice.ordered if layer.kind == "expert_parameter"]
    targets, excluded, feedforward = _name_modules(choice, modules, module_paths) if modules else (None, None, None)
    return TargetSpec(
        target_modules=targets,
        exclude_modules=excluded,
        modules_to_save=saved or None,
        target_parameters=_name_parameters(parameters, parameter_paths) if parameters else None,
        feedforward_modules=feedforward,
    )


def _name_modules(
    choice: Choice, modules: Sequence[str], module_paths: Sequence[str]
) -> tuple[Targets, Targets | None, Targets | None]:
    """Return (targets, exclusions, those of IA3's feed-forward layers)."""
    if choice.family == "IA3":
        return _name_scaled(choice, modules, module_paths)
    if get_method(choice.family).exclusion:
        return (*name_with_exclusion(modules, module_paths), None)
    return name_targets(modules, module_paths), None, None


def _name_scaled(choice: Choice, modules: Sequence[str], module_paths: Sequence[str]) -> tuple[Targets, None, Targets]:
    """Name IA3's layers so that its feed-forward names are among its targets, as PEFT demands of two lists."""
    second = [layer.path for layer in choice.feedforward]
    first = [path for path in modules if path not in second]
    targets, feedforward = name_targets(first, module_paths), name_targets(second, module_paths)
    if isinstance(targets, str) or isinstance(feedforward, str):
        return name_targets(modules, module_paths), None, feedforward
    return (*targets, *feedforward), None, _told_apart(feedforward, first, second)


def _told_apart(feedforward: tuple[str, ...], first: Sequence[str], second: Sequence[str]) -> Targets:
    """Return names or a regex: PEFT takes a feed-forward name for the end of a path, within a segment too."""
    return name_targets(second, [*first, *second]) if any(p.endswith(feedforward) for p in first) else feedforward


def _name_parameters(paths: Sequence[str], parameter_paths: Sequence[str]) -> tuple[str, ...]:
    """Return suffixes, which is all PEFT's ``target_parameters`` takes; whole paths if no suffix will do."""
    named = name_targets(paths, parameter_paths)
    return named if isinstance(named, tuple) else tuple(paths)
