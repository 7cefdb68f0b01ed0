"""Name the layers a method adapts in a model, and count the parameters it trains (as peft 0.21.2 builds them)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from .layers import Layer
from .methods import get_method
from .patterns import name_targets, name_with_exclusion
from .targets import Targets, TargetSpec
from .vocabulary import CONV_KINDS, Preset, Role

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


def count_per_rank(choice: Choice, gains: Mapping[str, int]) -> int:
    """Return the parameters each rank adds; none for a method without ranks."""
    if choice.family != "LORA":
        return 0
    return sum(size_per_rank(layer) + gains.get(layer.path, 0) for layer in choice.layers)


def count_gains(layers: Iterable[Layer], parameter_paths: Iterable[str]) -> dict[str, int]:
    """Return how many values per channel each convolution trains beside weight and bias, such as a scaled one's gain.

    PEFT makes both factors of a convolution's adapter of the convolution's own class, so each has as many.
    """
    owners = Counter(path.rpartition(".")[0] for path in parameter_paths if not path.endswith((".weight", ".bias")))
    return {layer.path: owners[layer.path] for layer in layers if layer.kind in CONV_KINDS and owners[layer.path]}


def size_per_rank(layer: Layer) -> int:
    """Return how many parameters each rank of a LoRA adapter on ``layer`` adds.

    A convolution's A keeps its kernel and reads every channel, its B keeps its groups; fused experts have one adapter
    each.
    """
    if layer.kind == "expert_parameter":
        experts, first, second = layer.shape
        return experts * (first + second)
    read, written = layer.in_features or 0, layer.out_features or 0
    return read * math.prod(layer.shape[2:]) + written // layer.groups


def count_fixed(choice: Choice, norm_sizes: Mapping[str, int], gains: Mapping[str, int]) -> int:
    """Return the parameters trained whatever the rank, heads aside."""
    if choice.family == "LORA":
        return sum(gains.get(layer.path, 0) * (layer.out_features or 0) for layer in choice.layers)
    if choice.family == "IA3":
        scaled = set(choice.feedforward)
        return sum((x.in_features if x in scaled else x.out_features) or 0 for x in choice.layers)
    if choice.family == "LN_TUNING":
        return sum(norm_sizes[layer.path] for layer in choice.layers)
    if choice.family == "OSF":
        return sum(map(_small_singular_values, choice.layers))
    return sum(layer.out_features or 0 for layer in choice.layers) if choice.family == "BEFT" else 0


def _small_singular_values(layer: Layer) -> int:
    """OSF keeps the larger half of a matrix's singular values and trains the rest, with their vectors."""
    rows, columns = layer.shape
    trained = min(rows, columns) - min(rows, columns) // 2
    return trained * (rows + columns + 1)
