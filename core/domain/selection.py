"""Name the layers a method adapts in a model, and count the parameters it trains (as peft 0.21.2 builds them)."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import get_args

from .layers import Layer
from .methods import get_method
from .patterns import OPEN, list_prefixes, name_by_index, name_targets, name_with_exclusion, pattern_of
from .places import BlockPattern, BlockRange, find_places
from .targets import Targets, TargetSpec
from .vocabulary import CONV_KINDS, Preset, Role, describe_slot

ROLE_ORDER: dict[str, int] = {role: position for position, role in enumerate(get_args(Role))}


@dataclass(frozen=True, slots=True)
class Choice:
    """The layers a family of methods adapts in a model."""

    family: str
    """Name of the family, which is that of its first method."""
    layers: tuple[Layer, ...]
    why: str
    """Why these layers, in words."""
    preset: Preset = "default"
    feedforward: tuple[Layer, ...] = ()
    """The layers that IA3 scales at the input."""

    @property
    def ordered(self) -> list[Layer]:
        """The layers in the order of the roles."""
        return sorted(self.layers, key=lambda layer: ROLE_ORDER[layer.role])

    def including(self, paths: Collection[str], layers: Iterable[Layer]) -> "Choice":
        """Return the choice with more layers of the same patterns; IA3 scales those of its second layers there too."""
        second = {pattern_of(layer.path) for layer in self.feedforward}
        more = [layer for layer in layers if layer.path in paths]
        feedforward = (layer for layer in more if pattern_of(layer.path) in second)
        return replace(self, layers=(*self.layers, *more), feedforward=(*self.feedforward, *feedforward))

    def keeping(self, paths: Collection[str]) -> "Choice":
        """Return the choice with the layers at these paths alone."""
        layers, second = (tuple(x for x in group if x.path in paths) for group in (self.layers, self.feedforward))
        return replace(self, layers=layers, feedforward=second)


def include_siblings(choice: Choice, candidates: Iterable[Layer], layers: Sequence[Layer]) -> Choice:
    """Return the choice with the candidates that stand in other blocks where a chosen layer does.

    So no block need be named, whatever its role is there: a mixer's ``q_proj`` in the blocks without attention. Where
    each block is a single layer, as in a sequence of convolutions, only layers of one shape are alike.
    """
    paths, patterns = {x.path for x in choice.layers}, {pattern_of(x.path) for x in choice.layers}
    others = [x for x in candidates if x.path not in paths and pattern_of(x.path) in patterns]
    if not others:
        return choice
    blocks = _BlockLists(layers)
    chosen = {blocks.locate(layer) for layer in choice.layers}
    more = {layer.path for layer in others if blocks.locate(layer) in chosen}
    if not more:
        return choice
    why = f"{choice.why}, and {len(more)} more at the same places in other blocks"
    return replace(choice.including(more, layers), why=why)


class _BlockLists:
    """The lists of blocks in a model."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._blocks = {part for layer in layers if layer.block for part in list_prefixes(pattern_of(layer.block))}
        weighted = (layer.path for layer in layers if layer.kind != "norm")
        self._sizes = Counter(chain.from_iterable(map(list_prefixes, weighted)))

    def locate(self, layer: Layer) -> tuple[str, tuple[int, ...]]:
        """Return the path with open indices of blocks, and the shape where a block is a single layer."""
        names, parts = layer.path.split("."), list_prefixes(layer.path)
        is_block = [
            name.isdecimal() and pattern_of(part) in self._blocks for name, part in zip(names, parts, strict=True)
        ]
        opened = ".".join(OPEN if block else name for name, block in zip(names, is_block, strict=True))
        is_single = any(block and self._sizes[part] == 1 for part, block in zip(parts, is_block, strict=True))
        return opened, layer.shape if is_single else ()


def make_spec(
    choice: Choice,
    layers: Sequence[Layer],
    module_paths: Sequence[str],
    parameter_paths: Sequence[str],
    saved: tuple[str, ...],
) -> TargetSpec:
    """Return the shortest spec that matches exactly the layers of a choice among all layers of the model.

    Layers that are dead by their place in the stack are named with those of the other blocks and left out by
    ``exclude_blocks``, so that the targets hold at every depth.
    """
    apart = _find_apart(choice, layers)
    choice = choice.including({*chain.from_iterable(apart.values())}, layers)
    modules = [layer.path for layer in choice.ordered if layer.kind != "expert_parameter"]
    experts = [layer.path for layer in choice.ordered if layer.kind == "expert_parameter"]
    targets: Targets | None = None
    excluded: Targets | None = None
    feedforward: Targets | None = None
    if modules and choice.family == "IA3":
        targets, feedforward = _name_ia3_targets(choice, modules, module_paths)
    elif modules and get_method(choice.family).exclusion:
        targets, excluded = name_with_exclusion(modules, module_paths)
    elif modules:
        targets = name_targets(modules, module_paths)
    parameters = name_targets(experts, parameter_paths) if experts else None
    return TargetSpec(
        target_modules=targets,
        exclude_modules=excluded,
        exclude_blocks=tuple(map(str, apart)) or None,
        modules_to_save=saved or None,
        # PEFT takes no regex here: whole paths where no suffix is exact.
        target_parameters=tuple(experts) if isinstance(parameters, str) else parameters,
        feedforward_modules=feedforward,
    )


def make_block_spec(
    choice: Choice, module_paths: Sequence[str], parameter_paths: Sequence[str], saved: tuple[str, ...]
) -> TargetSpec:
    """Return a spec that matches the layers of a choice of blocks, by the indices of the model at hand."""
    modules = [layer.path for layer in choice.ordered if layer.kind != "expert_parameter"]
    experts = [layer.path for layer in choice.ordered if layer.kind == "expert_parameter"]
    second = [layer.path for layer in choice.feedforward]
    parameters = name_targets(experts, parameter_paths) if experts else None
    return TargetSpec(
        target_modules=name_by_index(modules, module_paths) if modules else None,
        modules_to_save=saved or None,
        target_parameters=tuple(experts) if isinstance(parameters, str) else parameters,
        feedforward_modules=name_by_index(second, module_paths) if second else None,
    )


def _find_apart(choice: Choice, layers: Sequence[Layer]) -> dict[BlockPattern, tuple[str, ...]]:
    """Return the dead layers that differ from layers of the choice in their blocks alone, by the blocks they are in.

    There are none for a method that cannot exclude layers.
    """
    if not get_method(choice.family).exclusion:
        return {}
    chosen = {pattern_of(layer.path) for layer in choice.layers if layer.kind != "expert_parameter"}
    dead: dict[tuple[str, str], list[str]] = defaultdict(list)
    for layer in layers:
        if layer.live is False and layer.blocks and pattern_of(layer.path) in chosen:
            dead[pattern_of(layer.path), layer.blocks].append(layer.path)
    places = find_places([layer.path for layer in layers]) if dead else {}
    found: dict[BlockPattern, tuple[str, ...]] = {}
    for (_, blocks), paths in dead.items():
        named = BlockPattern.find(paths, places, BlockRange.parse(blocks))
        if named:
            found[named] = tuple(paths)
    return found


def _name_ia3_targets(choice: Choice, modules: Sequence[str], module_paths: Sequence[str]) -> tuple[Targets, Targets]:
    """Return targets and feed-forward targets; of two lists PEFT requires the second to be part of the first."""
    second = [layer.path for layer in choice.feedforward]
    first = [path for path in modules if path not in second]
    targets, feedforward = name_targets(first, module_paths), name_targets(second, module_paths)
    if isinstance(targets, str) or isinstance(feedforward, str):
        return name_targets(modules, module_paths), feedforward
    # PEFT matches a feed-forward name with the end of a path, even within a segment.
    is_ambiguous = any(path.endswith(feedforward) for path in first)
    return (*targets, *feedforward), name_targets(second, [*first, *second]) if is_ambiguous else feedforward


def count_per_rank(choice: Choice, gains: Mapping[str, int]) -> int:
    """Return the number of parameters each rank adds; 0 for a method without ranks."""
    if choice.family != "LORA":
        return 0
    return sum(size_per_rank(layer) + gains.get(layer.path, 0) for layer in choice.layers)


def count_gains(layers: Iterable[Layer], parameter_paths: Iterable[str]) -> dict[str, int]:
    """Return the number of values per channel that each convolution trains beside weight and bias, such as a gain.

    PEFT builds both factors of a convolution's adapter from the convolution's own class, so each has as many.
    """
    owners = Counter(path.rpartition(".")[0] for path in parameter_paths if not path.endswith((".weight", ".bias")))
    return {layer.path: owners[layer.path] for layer in layers if layer.kind in CONV_KINDS and owners[layer.path]}


def size_per_rank(layer: Layer) -> int:
    """Return the number of parameters each rank of a LoRA adapter on ``layer`` adds.

    A convolution's A keeps its kernel and reads every channel, its B keeps its groups; fused experts have one adapter
    each; ``nn.MultiheadAttention`` has one on its packed input projection and one on its square output projection.
    """
    if layer.kind == "expert_parameter":
        *stack, first, second = layer.shape
        return math.prod(stack) * (first + second)
    if layer.kind == "multihead_attention":
        packed, width = layer.shape
        return packed + width + 2 * width
    read, written = layer.in_features or 0, layer.out_features or 0
    return read * math.prod(layer.shape[2:]) + written // layer.groups


def count_fixed(choice: Choice, norm_sizes: Mapping[str, int], gains: Mapping[str, int]) -> int:
    """Return the number of parameters trained at any rank, without heads."""
    scaled = set(choice.feedforward)
    count_of_layer: dict[str, Callable[[Layer], int]] = {
        "LORA": lambda layer: gains.get(layer.path, 0) * (layer.out_features or 0),
        "IA3": lambda layer: (layer.in_features if layer in scaled else layer.out_features) or 0,
        "LN_TUNING": lambda layer: norm_sizes[layer.path],
        # OSF keeps the larger half of the singular values and trains the rest, with their vectors.
        "OSF": lambda layer: (min(layer.shape) - min(layer.shape) // 2) * (sum(layer.shape) + 1),
        "BEFT": lambda layer: layer.out_features or 0,
    }
    count = count_of_layer.get(choice.family)
    return sum(map(count, choice.layers)) if count else 0


def describe_blocks(spec: TargetSpec) -> list[str]:
    """Return a reason for each block whose layers a spec leaves alone at any depth."""
    return [f"left out at any depth, as no gradient comes there: {text}" for text in spec.exclude_blocks or ()]


def describe_slots(choice: Choice) -> list[str]:
    """Return a reason for each slot of a choice."""
    slots = Counter((pattern_of(layer.path), layer.role) for layer in choice.ordered)
    return [describe_slot(pattern, role, count) for (pattern, role), count in slots.items()]
