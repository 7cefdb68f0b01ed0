"""Presets: the layers each of them adapts among those that may be adapted, by kind, role and block.

They follow from layer records alone, so they hold for a model at hand, a scan and the stored slots of an architecture.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from .layers import Layer
from .selection import Choice
from .vocabulary import CONV_KINDS, RANK, Preset, Role

ADAPTABLE_KINDS = ("linear", "transposed_linear", *CONV_KINDS, "expert_parameter", "multihead_attention")
DENSE_KINDS = ("linear", "transposed_linear", "expert_parameter")

KEY_VALUE: frozenset[Role] = frozenset({"attention.key", "attention.value", "attention.qkv", "attention.kv"})
QUERY_VALUE: frozenset[Role] = frozenset({"attention.query", "attention.value", "attention.qkv", "attention.kv"})
ATTENTION: frozenset[Role] = QUERY_VALUE | {"attention.key", "attention.latent", "attention.output"}
MIXER_INPUT: frozenset[Role] = frozenset({"mixer.input"})
MIXER: frozenset[Role] = frozenset({"mixer.input", "mixer.output"})
MLP: frozenset[Role] = frozenset({"mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down"})
EXPERT: frozenset[Role] = frozenset({"expert.gate", "expert.up", "expert.gate_up", "expert.down"})
FEED_FORWARD: frozenset[Role] = frozenset({"mlp.down", "expert.down"})
NEVER: frozenset[Role] = frozenset(
    {"embedding.token", "embedding.position", "moe.router", "head", "norm", "mixer.state", "conv.depthwise"}
)
"""Roles without adapters."""
ADDED: frozenset[Role] = frozenset({"embedding.patch", "embedding.condition", "modulation", "projector"})
"""Roles with adapters in the preset ``everything`` alone: what serves the blocks, or leads a condition into them."""
PROJECTIONS: frozenset[Role] = KEY_VALUE | {"attention.query", "attention.latent", "mixer.input", "mixer.state"}
"""Roles beside which a norm works inside a mixer: on queries, keys or a state, not between the layers of the block."""
CONVOLUTIONS: frozenset[Role] = frozenset({"conv.pointwise", "conv.spatial"})
WHOLE: tuple[Preset, ...] = ("default", "recommended", "all-linear")
"""Presets that adapt a layer in every block that has it, in any role."""
NO_NETWORK = "most blocks hold no attention or feed-forward network that is known"
Selected = tuple[tuple[Layer, ...], str]
"""(layers, reason)."""


def is_adaptable(layer: Layer, never: frozenset[Role] = NEVER | ADDED) -> bool:
    """Return whether an adapter may be put on a layer.

    It must be a part of the model, of a kind an adapter can imitate, in a role that is adapted, not known to be dead,
    called on every path of the code, and its groups must divide the rank.
    """
    fits = layer.path and layer.kind in ADAPTABLE_KINDS and layer.misfit is None and RANK % layer.groups == 0
    return bool(fits) and layer.role not in never and is_reached(layer)


def is_reached(layer: Layer) -> bool:
    """Return whether no cause is known that keeps gradients from a layer, a fused kernel included."""
    return layer.live is not False and not layer.bypassed and not layer.kernel


def without_parts(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers without the parts of each ``nn.MultiheadAttention`` among them, which is adapted as a whole."""
    whole = start_of_parts(layers)
    return tuple(layer for layer in layers if not layer.path.startswith(whole))


def start_of_parts(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the starts of the paths of all parts of each ``nn.MultiheadAttention``."""
    return tuple(f"{layer.path}." for layer in layers if layer.kind == "multihead_attention")


def with_roles(layers: Sequence[Layer], roles: frozenset[Role]) -> tuple[Layer, ...]:
    """Return the layers with one of these roles."""
    return tuple(layer for layer in layers if layer.role in roles)


def choose_in_each_tower(candidates: Sequence[Layer], choose: Callable[[Sequence[Layer]], Choice]) -> Choice:
    """Return the layers a family adapts: of each tower those that it has for that, and the reason of each."""
    towers = dict.fromkeys(layer.tower for layer in candidates)
    choices = {tower: choose([layer for layer in candidates if layer.tower == tower]) for tower in towers}
    first, *others = [choice for choice in choices.values() if choice.layers] or [*choices.values()]
    if not others:
        return first
    whys = {tower: choice.why for tower, choice in choices.items() if choice.layers}
    is_one = len({*whys.values()}) == 1
    return replace(
        first,
        layers=tuple(layer for choice in choices.values() for layer in choice.layers),
        why=first.why if is_one else "; ".join(f"{tower}: {why}" for tower, why in whys.items()),
        feedforward=tuple(layer for choice in choices.values() for layer in choice.feedforward),
    )


def choose_lora(layers: Sequence[Layer], preset: Preset) -> Choice:
    """Return the choice of a preset of LoRA."""
    return Choice("LORA", *choose_layers(layers, preset), preset=preset)


def choose_layers(layers: Sequence[Layer], preset: Preset) -> Selected:
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


def default_layers(layers: Sequence[Layer]) -> Selected:
    """Return query and value or the projection that holds both, which is PEFT's convention; else the nearest roles."""
    ladder: tuple[tuple[frozenset[Role], str], ...] = (
        (QUERY_VALUE, "query and value, or the projection that holds them (PEFT's convention)"),
        (MIXER_INPUT, "no attention to adapt: what enters the mixers"),
        (MLP | EXPERT, "neither attention nor mixer to adapt: the feed-forward networks"),
    )
    if is_convolutional(layers):
        return channel_mixers(layers)
    matched = ((with_roles(layers, roles), why) for roles, why in ladder)
    return next((selection for selection in matched if selection[0]), None) or channel_mixers(layers)


def is_convolutional(layers: Sequence[Layer]) -> bool:
    """Return whether a network works by convolutions: it has no attention, and most blocks no feed-forward network.

    The two pointwise convolutions of an inverted bottleneck without a convolution between them look like one.
    """
    blocks = {layer.block or layer.path for layer in layers}  # without blocks, by layers
    inside = {layer.block or layer.path for layer in with_roles(layers, MLP | EXPERT)}
    convolves = any(layer.role in CONVOLUTIONS for layer in layers)
    return convolves and not with_roles(layers, ATTENTION | MIXER) and 2 * len(inside) < len(blocks)


def channel_mixers(layers: Sequence[Layer]) -> Selected:
    """Return dense layers and pointwise convolutions, which compute the same, if most blocks have one.

    Otherwise spatial convolutions are included: a resnet18 has pointwise convolutions only in the shortcuts of three of
    its eight blocks.
    """
    pointwise = MLP | EXPERT | {"conv.pointwise"}
    mixers = tuple(layer for layer in layers if layer.kind in DENSE_KINDS or layer.role in pointwise)
    blocks = {layer.block for layer in layers}
    if blocks != {None} and 2 * len({layer.block for layer in mixers}) >= len(blocks):
        why = "which mixes the channels of one position as a dense layer does; 'all-linear' adds the wider convolutions"
        return mixers, f"{NO_NETWORK}: every dense layer and pointwise convolution, {why}"
    return every_convolution(layers)


def every_convolution(layers: Sequence[Layer]) -> Selected:
    """Return dense layers and every convolution that mixes channels, which a depthwise one does not."""
    every = tuple(x for x in layers if x.kind in DENSE_KINDS or x.role in CONVOLUTIONS | MLP | EXPERT)
    return every, f"{NO_NETWORK}: every dense layer and convolution but depthwise ones, gates and the head"


def all_linear(layers: Sequence[Layer]) -> Selected:
    """Return every live dense layer of the blocks (QLoRA, arXiv:2305.14314), or every convolution without attention.

    A convolution that works as a feed-forward layer or an attention projection counts as dense.
    """
    as_dense = ATTENTION | MIXER | MLP | EXPERT
    if not with_roles(layers, as_dense) or is_convolutional(layers):
        return every_convolution(layers)
    dense = tuple(layer for layer in layers if layer.kind in DENSE_KINDS or layer.role in as_dense)
    return dense, "every dense layer (QLoRA's convention)"
