"""Which layers a LoRA preset adapts, in which tower, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...domain.layers import Layer
from ...domain.vocabulary import RANK, Preset, Role, Tower
from .left_out import ADAPTABLE_KINDS, NEVER, tell_left_out

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
    """The layers of the tower an adapter goes to.

    Attributes:
        tower: The tower chosen.
        layers: Its adaptable layers in the blocks (everywhere but the head, if there are no blocks).
        reasons: Why this tower and what was left out.
    """

    tower: Tower
    layers: tuple[Layer, ...]
    reasons: tuple[str, ...]


def choose_candidates(layers: Sequence[Layer]) -> Candidates | None:
    """Return the layers of the tower to adapt: the language tower if there is one, else the first that has any."""
    adaptable = [layer for layer in layers if is_adaptable(layer)]
    for tower in TOWER_ORDER:
        inside = [layer for layer in adaptable if layer.tower == tower]
        blocks = tuple(layer for layer in inside if layer.depth)
        in_tower = [layer for layer in layers if layer.tower == tower]
        chosen = blocks if any(layer.depth for layer in in_tower) else tuple(inside)
        if chosen:
            return Candidates(tower, chosen, tuple(tell_left_out(tower, layers, has_blocks=bool(blocks))))
    return None


def is_adaptable(layer: Layer) -> bool:
    """Tell whether an adapter may go on a layer.

    It must stand inside the model, not be the model, be of a kind an adapter can imitate, in a role it is meant for,
    not known dead, called on every path of the code, and its groups must divide the rank.
    """
    fits = layer.path and layer.kind in ADAPTABLE_KINDS and RANK % layer.groups == 0
    return bool(fits) and layer.role not in NEVER and is_reached(layer)


def is_reached(layer: Layer) -> bool:
    """Tell whether nothing is known that would keep a gradient from the layer, a fused kernel included."""
    return layer.live is not False and not layer.bypassed and not layer.kernel


def choose_layers(layers: Sequence[Layer], preset: Preset) -> tuple[tuple[Layer, ...], str]:
    """Return the layers a preset adapts, and why; none if the preset has nothing to hit."""
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
    """PEFT's convention is query and value, or the projection that holds both; else the nearest thing there is."""
    ladder: tuple[tuple[frozenset[Role], str], ...] = (
        (QUERY_VALUE, "query and value, or the projection that holds them (PEFT's convention)"),
        (MIXER_INPUT, "no attention to adapt: what enters the mixers"),
        (MLP | EXPERT, "neither attention nor mixer to adapt: the feed-forward networks"),
    )
    for roles, why in ladder:
        found = with_roles(layers, roles)
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
    mixing = {layer.path for layer in mixers}
    every = tuple(layer for layer in layers if layer.path in mixing or layer.role in SPATIAL)
    return every, "no attention or feed-forward network is known: every dense layer and convolution but the head"


def all_linear(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str]:
    """Every live dense layer of the blocks (QLoRA, arXiv:2305.14314); in a convolutional network, what stands for it.

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
