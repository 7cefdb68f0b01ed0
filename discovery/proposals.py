"""Proposals: which roles a preset adapts, in which tower, and the target spec that hits exactly those layers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from ..records import Layer, Proposal
from ..targets import TargetSpec
from ..vocabulary import PRESETS, RANK, Preset, Role, Tower
from .facts import ModelFacts
from .layers import CONV_KINDS
from .patterns import name_targets
from .slots import pattern_of
from .towers import is_below

ROLE_ORDER: dict[str, int] = {role: position for position, role in enumerate(get_args(Role))}
PEFT_TYPE = "LORA"
ADAPTABLE_KINDS = ("linear", "transposed_linear", *CONV_KINDS, "expert_parameter")
DENSE_KINDS = ("linear", "transposed_linear", "expert_parameter")
TOWER_ORDER: tuple[Tower, ...] = ("language", "vision", "audio", "main")

QUERY_VALUE: frozenset[Role] = frozenset({"attention.query", "attention.value", "attention.qkv", "attention.kv"})
ATTENTION: frozenset[Role] = QUERY_VALUE | {"attention.key", "attention.latent", "attention.output"}
MIXER_INPUT: frozenset[Role] = frozenset({"mixer.input"})
MIXER: frozenset[Role] = frozenset({"mixer.input", "mixer.output"})
MLP: frozenset[Role] = frozenset({"mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down"})
EXPERT: frozenset[Role] = frozenset({"expert.gate", "expert.up", "expert.gate_up", "expert.down"})
POINTWISE: frozenset[Role] = frozenset({"conv.pointwise"})
SPATIAL: frozenset[Role] = frozenset({"conv.spatial"})
EMBEDDING: frozenset[Role] = frozenset({"embedding.token", "embedding.position", "embedding.patch"})
NEVER: frozenset[Role] = EMBEDDING | {"moe.router", "head", "norm", "projector", "mixer.state", "conv.depthwise"}


@dataclass(frozen=True, slots=True)
class Candidates:
    """The layers of the tower an adapter goes to.

    Attributes:
        tower: The tower chosen.
        layers: Its adaptable layers in the blocks (everywhere but the head, if there are no blocks).
        reasons: Why this tower and what was left out.
    """

    tower: Tower
    layers: tuple[Layer, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What proposals are made for.

    Attributes:
        layers: Labelled layers.
        module_paths: Every module path of the model.
        parameter_paths: Every parameter path of the model.
        saved: Paths of freshly made heads, to be trained in full.
        saved_parameters: How many parameters those heads hold.
    """

    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    parameter_paths: tuple[str, ...]
    saved: tuple[str, ...]
    saved_parameters: int


def propose_all(subject: Subject) -> tuple[Proposal, ...]:
    """Return the LoRA proposals of every preset that has something to hit."""
    candidates = choose_candidates(subject.layers)
    if candidates is None:
        return ()
    chosen = ((preset, *choose_layers(candidates.layers, preset)) for preset in PRESETS)
    return tuple(_propose(preset, hit, (why, *candidates.reasons), subject) for preset, hit, why in chosen if hit)


def choose_candidates(layers: Sequence[Layer]) -> Candidates | None:
    """Return the layers of the tower to adapt: the language tower if there is one, else the first that has any."""
    adaptable = [layer for layer in layers if is_adaptable(layer)]
    for tower in TOWER_ORDER:
        inside = [layer for layer in adaptable if layer.tower == tower]
        blocks = tuple(layer for layer in inside if layer.depth)
        in_tower = [layer for layer in layers if layer.tower == tower]
        chosen = blocks if any(layer.depth for layer in in_tower) else tuple(inside)
        if chosen:
            return Candidates(tower, chosen, tuple(_reasons_left_out(tower, layers, has_blocks=bool(blocks))))
    return None


def is_adaptable(layer: Layer) -> bool:
    """Tell whether an adapter may go on a layer.

    It must stand inside the model, not be the model, be of a kind an adapter can imitate, in a role it is meant for,
    not known dead, and its groups must divide the rank.
    """
    fits = layer.path and layer.kind in ADAPTABLE_KINDS and RANK % layer.groups == 0
    return bool(fits) and layer.role not in NEVER and layer.live is not False and not layer.bypassed


def _reasons_left_out(tower: Tower, layers: Sequence[Layer], *, has_blocks: bool) -> list[str]:
    others = sorted({layer.tower for layer in layers} - {tower})
    reasons = [f"only the {tower} tower is adapted; left alone: {', '.join(others)}"] if others else []
    if has_blocks:
        reasons.append("only layers in the repeated blocks are adapted")
    left = Counter(layer.role for layer in layers if layer.role in NEVER and layer.kind in ADAPTABLE_KINDS)
    left += Counter(layer.role for layer in layers if layer.role == "moe.router" and layer.kind == "other")
    reasons += [f"left out: {_layers(count, role)}" for role, count in sorted(left.items())]
    dead = sum(layer.live is False and layer.tower == tower and layer.kind in ADAPTABLE_KINDS for layer in layers)
    reasons += [f"left out: {_layers(dead)} known to get no gradient"] if dead else []
    read = Counter(layer.bypassed for layer in layers if layer.bypassed and layer.tower == tower)
    reasons += [f"left out: {_layers(n)} never called, whose weight is read at {at}" for at, n in sorted(read.items())]
    grouped = sum(layer.role == "conv.spatial" and RANK % layer.groups > 0 for layer in layers)
    reasons += [f"left out: {_layers(grouped)} whose groups do not divide rank {RANK}"] if grouped else []
    heads = sum(layer.kind == "multihead_attention" and layer.tower == tower for layer in layers)
    if heads:
        reasons.append(f"left out: {heads} nn.MultiheadAttention modules, whose parts are never called")
    return reasons


def choose_layers(layers: Sequence[Layer], preset: Preset) -> tuple[tuple[Layer, ...], str]:
    """Return the layers a preset adapts, and why; none if the preset has nothing to hit."""
    if preset == "all-linear":
        return all_linear(layers)
    if preset == "attention":
        return _with_roles(layers, ATTENTION), "every projection of the attention"
    if preset == "mlp":
        return _with_roles(layers, MLP | EXPERT), "every layer of the feed-forward networks, experts included"
    return default_layers(layers)


def default_layers(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """PEFT's convention is query and value, or the projection that holds both; else the nearest thing there is."""
    ladder: tuple[tuple[frozenset[Role], str], ...] = (
        (QUERY_VALUE, "query and value, or the projection that holds them (PEFT's convention)"),
        (MIXER_INPUT, "no attention to adapt: what enters the mixers"),
        (MLP | EXPERT, "neither attention nor mixer to adapt: the feed-forward networks"),
    )
    for roles, why in ladder:
        found = _with_roles(layers, roles)
        if found:
            return found, why
    return channel_mixers(layers)


def channel_mixers(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """Dense layers and pointwise convolutions, which do the same, if most blocks have one.

    Shortcuts alone are no path: a resnet18 has pointwise convolutions in three of its eight blocks only.
    """
    mixers = tuple(layer for layer in layers if layer.kind in DENSE_KINDS or layer.role in POINTWISE)
    blocks = {layer.block for layer in layers}
    if blocks != {None} and 2 * len({layer.block for layer in mixers}) >= len(blocks):
        return mixers, "no attention or feed-forward network is known: every dense layer and pointwise convolution"
    every = tuple(layer for layer in layers if layer in mixers or layer.role in SPATIAL)
    return every, "no attention or feed-forward network is known: every dense layer and convolution but the head"


def all_linear(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """Every live dense layer of the blocks (QLoRA, arXiv:2305.14314); in a convolutional network, what stands for it.

    A convolution that works as a feed-forward layer or an attention projection counts as dense.
    """
    as_dense = ATTENTION | MIXER | MLP | EXPERT
    if not _with_roles(layers, as_dense):
        return channel_mixers(layers)
    dense = tuple(layer for layer in layers if layer.kind in DENSE_KINDS or layer.role in as_dense)
    return dense, "every dense layer (QLoRA's convention)"


def _with_roles(layers: Sequence[Layer], roles: frozenset[Role]) -> tuple[Layer, ...]:
    return tuple(layer for layer in layers if layer.role in roles)


def _propose(preset: Preset, hit: tuple[Layer, ...], reasons: tuple[str, ...], subject: Subject) -> Proposal:
    ordered = sorted(hit, key=lambda layer: ROLE_ORDER[layer.role])
    modules = [layer.path for layer in ordered if layer.kind != "expert_parameter"]
    parameters = [layer.path for layer in ordered if layer.kind == "expert_parameter"]
    spec = TargetSpec(
        target_modules=name_targets(modules, subject.module_paths) if modules else None,
        modules_to_save=subject.saved or None,
        target_parameters=_name_parameters(parameters, subject.parameter_paths) if parameters else None,
    )
    per_rank = sum(map(size_per_rank, hit))
    why = (*_reasons_hit(ordered), *reasons)
    return Proposal(PEFT_TYPE, preset, spec, len(hit), per_rank, subject.saved_parameters, why)


def _name_parameters(paths: Sequence[str], parameter_paths: Sequence[str]) -> tuple[str, ...]:
    """Return suffixes, which is all PEFT's ``target_parameters`` takes; whole paths if no suffix will do."""
    named = name_targets(paths, parameter_paths)
    return named if isinstance(named, tuple) else tuple(paths)


def _reasons_hit(hit: Sequence[Layer]) -> list[str]:
    slots = Counter((layer.role, pattern_of(layer.path)) for layer in hit)
    return [_reason_hit(role, pattern, count) for (role, pattern), count in slots.items()]


def _reason_hit(role: Role, pattern: str, count: int) -> str:
    is_known = "" if role == "other" else f" is {role}"
    return f"{pattern}{is_known} ({_layers(count)})"


def _layers(count: int, role: str = "") -> str:
    return " ".join(filter(None, (str(count), role, "layer" if count == 1 else "layers")))


def size_per_rank(layer: Layer) -> int:
    """Return how many parameters each rank of a LoRA adapter on ``layer`` adds.

    A convolution's A keeps its kernel and its groups (as PEFT 0.21.2 builds it); fused experts have one adapter each.
    """
    if layer.kind == "expert_parameter":
        experts, first, second = layer.shape
        return experts * (first + second)
    read, written = layer.in_features or 0, layer.out_features or 0
    kernel = math.prod(layer.shape[2:])
    return (read * kernel + written) // layer.groups


def saved_heads(layers: Sequence[Layer], facts: ModelFacts) -> tuple[str, ...]:
    """Return the modules to train in full: heads a task made afresh.

    A head that writes logits over the vocabulary was trained with the model, and so was all around it: one the model
    declares, one tied to an embedding, or one as wide as the largest embedding.
    """
    vocabulary = max((layer.shape[0] for layer in layers if layer.role == "embedding.token"), default=-1)
    heads = [layer for layer in layers if layer.role == "head"]
    if facts.language_heads or any(head.tied_to or head.out_features == vocabulary for head in heads):
        return ()
    return tuple(dict.fromkeys(_topmost(head.path, facts) for head in heads))


def _topmost(path: str, facts: ModelFacts) -> str:
    """Return the declared head that holds ``path``, else the outermost module that can be saved in its place.

    That is one that holds no base model and is no mere container.
    """
    segments = path.split(".")
    prefixes = [".".join(segments[:end]) for end in range(1, len(segments) + 1)]
    savable = [prefix for prefix in prefixes if prefix not in facts.containers]
    declared = (prefix for prefix in savable if any(is_below(prefix, head) for head in facts.task_heads))
    bases = [model.base_path for model in facts.sub_models]
    alone = (prefix for prefix in savable if bases and not any(is_below(base, prefix) for base in bases))
    return next(declared, None) or next(alone, path)
