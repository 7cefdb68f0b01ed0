"""What proposals leave alone, in words."""

from collections import Counter
from collections.abc import Sequence

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS, RANK, Role, Tower
from ...wording import count_layers

ADAPTABLE_KINDS = ("linear", "transposed_linear", *CONV_KINDS, "expert_parameter")
EMBEDDING: frozenset[Role] = frozenset({"embedding.token", "embedding.position", "embedding.patch"})
NEVER: frozenset[Role] = EMBEDDING | {"moe.router", "head", "norm", "projector", "mixer.state", "conv.depthwise"}
"""Roles no adapter goes on."""


def tell_left_out(tower: Tower, layers: Sequence[Layer], *, has_blocks: bool) -> list[str]:
    """Return what is left alone in a model whose adapters go to ``tower``, as reasons."""
    others = sorted({layer.tower for layer in layers} - {tower})
    reasons = [f"only the {tower} tower is adapted; left alone: {', '.join(others)}"] if others else []
    if has_blocks:
        reasons.append("only layers in the repeated blocks are adapted")
    left = Counter(layer.role for layer in layers if layer.role in NEVER and layer.kind in ADAPTABLE_KINDS)
    left += Counter(layer.role for layer in layers if layer.role == "moe.router" and layer.kind == "other")
    reasons += [f"left out: {count_layers(count, role)}" for role, count in sorted(left.items())]
    dead = sum(
        layer.live is False and not layer.bypassed and layer.tower == tower and layer.kind in ADAPTABLE_KINDS
        for layer in layers
    )
    reasons += [f"left out: {count_layers(dead)} known to get no gradient"] if dead else []
    read = Counter(layer.bypassed for layer in layers if layer.bypassed and layer.tower == tower)
    never = "never called, whose weight is read at"
    reasons += [f"left out: {count_layers(n)} {never} {at}" for at, n in sorted(read.items())]
    fused = Counter((layer.kernel, layer.role) for layer in layers if layer.kernel and layer.tower == tower)
    reasons += [f"left out: {count_layers(n, role)} bypassed under {at}" for (at, role), n in sorted(fused.items())]
    grouped = sum(layer.role == "conv.spatial" and RANK % layer.groups > 0 for layer in layers)
    reasons += [f"left out: {count_layers(grouped)} whose groups do not divide rank {RANK}"] if grouped else []
    heads = sum(layer.kind == "multihead_attention" and layer.tower == tower for layer in layers)
    if heads:
        reasons.append(f"left out: {heads} nn.MultiheadAttention modules, whose parts are never called")
    return reasons
