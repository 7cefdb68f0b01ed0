"""Rules of choice: the tower and the layers a LoRA preset adapts, with the reason, and the heads trained in full."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS, RANK, Preset, Role, Tower
from ..facts.model_facts import ModelFacts
from ..facts.towers import is_below

ADAPTABLE_KINDS = ("linear", "transposed_linear", *CONV_KINDS, "expert_parameter")
EMBEDDING: frozenset[Role] = frozenset({"embedding.token", "embedding.position", "embedding.patch"})
NEVER: frozenset[Role] = EMBEDDING | {"moe.router", "head", "norm", "projector", "mixer.state", "conv.depthwise"}
"""Roles without adapters."""
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


@dataclass(frozen=True, slots=True)
class Candidates:
    """The layers that may be adapted.

    Attributes:
        tower: The tower chosen.
        layers: Its adaptable layers in the blocks (everywhere but the head, if there are no blocks).
    """

    tower: Tower
    layers: tuple[Layer, ...]


def choose_candidates(layers: Sequence[Layer]) -> Candidates | None:
    """Return the layers of the tower to adapt: the language tower if there is one, else the first that has any."""
    for tower in TOWER_ORDER:
        inside = [layer for layer in layers if layer.tower == tower]
        has_blocks = any(layer.depth for layer in inside)
        chosen = tuple(layer for layer in inside if is_adaptable(layer) and (layer.depth or not has_blocks))
        if chosen:
            return Candidates(tower, chosen)
    return None


def is_adaptable(layer: Layer) -> bool:
    """Return whether an adapter may be put on a layer.

    It must be a part of the model, of a kind an adapter can imitate, in a role that is adapted, not known to be dead,
    called on every path of the code, and its groups must divide the rank.
    """
    fits = layer.path and layer.kind in ADAPTABLE_KINDS and RANK % layer.groups == 0
    return bool(fits) and layer.role not in NEVER and is_reached(layer)


def is_reached(layer: Layer) -> bool:
    """Return whether no cause is known that keeps gradients from a layer, a fused kernel included."""
    return layer.live is not False and not layer.bypassed and not layer.kernel


def choose_layers(layers: Sequence[Layer], preset: Preset) -> tuple[tuple[Layer, ...], str]:
    """Return the layers a preset adapts, and the reason; none if it matches no layer."""
    if preset == "all-linear":
        return all_linear(layers)
    if preset == "attention":
        return with_roles(layers, ATTENTION), "every projection of the attention"
    if preset == "experts":
        return with_roles(layers, EXPERT), "every layer of the experts, gate and up together; the router is left alone"
    if preset == "mlp":
        return with_roles(layers, MLP | EXPERT), "every layer of the feed-forward networks, experts included"
    return default_layers(layers)


def default_layers(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """Return query and value or the projection that holds both, which is PEFT's convention; else the nearest roles."""
    ladder: tuple[tuple[frozenset[Role], str], ...] = (
        (QUERY_VALUE, "query and value, or the projection that holds them (PEFT's convention)"),
        (MIXER_INPUT, "no attention to adapt: what enters the mixers"),
        (MLP | EXPERT, "neither attention nor mixer to adapt: the feed-forward networks"),
    )
    for roles, why in ladder:
        matched = with_roles(layers, roles)
        if matched:
            return matched, why
    return channel_mixers(layers)


def channel_mixers(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """Return dense layers and pointwise convolutions, which compute the same, if most blocks have one.

    Otherwise spatial convolutions are included: a resnet18 has pointwise convolutions only in the shortcuts of three of
    its eight blocks.
    """
    mixers = tuple(layer for layer in layers if layer.kind in DENSE_KINDS or layer.role in POINTWISE)
    blocks = {layer.block for layer in layers}
    if blocks != {None} and 2 * len({layer.block for layer in mixers}) >= len(blocks):
        return mixers, "no attention or feed-forward network is known: every dense layer and pointwise convolution"
    mixing = {layer.path for layer in mixers}
    every = tuple(layer for layer in layers if layer.path in mixing or layer.role in SPATIAL)
    return every, "no attention or feed-forward network is known: every dense layer and convolution but the head"


def all_linear(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """Return every live dense layer of the blocks (QLoRA, arXiv:2305.14314); convolutions in a convolutional network.

    A convolution that works as a feed-forward layer or an attention projection counts as dense.
    """
    as_dense = ATTENTION | MIXER | MLP | EXPERT
    if not with_roles(layers, as_dense):
        return channel_mixers(layers)
    dense = tuple(layer for layer in layers if layer.kind in DENSE_KINDS or layer.role in as_dense)
    return dense, "every dense layer (QLoRA's convention)"


def with_roles(layers: Sequence[Layer], roles: frozenset[Role]) -> tuple[Layer, ...]:
    """Return the layers with one of these roles."""
    return tuple(layer for layer in layers if layer.role in roles)


def saved_heads(layers: Sequence[Layer], facts: ModelFacts) -> tuple[str, ...]:
    """Return the modules to train in full: heads made anew for a task.

    A head that writes logits over the vocabulary was trained with the model, and so was everything around it: one the
    model declares, one tied to an embedding, or one as wide as the largest embedding. A name that also ends the path of
    a container is left out: PEFT's ``modules_to_save`` matches the end of a path, even within a segment, and rejects a
    list of modules.
    """
    vocabulary = max((layer.shape[0] for layer in layers if layer.role == "embedding.token"), default=-1)
    heads = [layer for layer in layers if layer.role == "head"]
    if facts.language_heads or any(head.tied_to or head.out_features == vocabulary for head in heads):
        return ()
    names = dict.fromkeys(find_savable(head.path, facts) for head in heads)
    return tuple(n for n in names if not any(path.endswith(n) and path != n for path in facts.containers))


def find_savable(path: str, facts: ModelFacts) -> str:
    """Return the declared head around ``path``, else the outermost module that can be saved in its place.

    The latter holds no base model and is not a mere container.
    """
    segments = path.split(".")
    prefixes = [".".join(segments[:end]) for end in range(1, len(segments) + 1)]
    savable = [prefix for prefix in prefixes if prefix not in facts.containers]
    declared = (prefix for prefix in savable if any(is_below(prefix, head) for head in facts.task_heads))
    bases = [model.base_path for model in facts.sub_models]
    alone = (prefix for prefix in savable if bases and not any(is_below(base, prefix) for base in bases))
    return next(declared, None) or next(alone, path)
