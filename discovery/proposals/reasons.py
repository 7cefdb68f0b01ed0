"""The reasons of a proposal in words: slots, stacks of experts, and layers left out."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...domain.selection import Choice
from ...domain.vocabulary import RANK, Tower, count_layers, describe_slot
from .rules import ADAPTABLE_KINDS, NEVER

LAYOUTS = {"in_out": "input first (transposed)", "out_in": "output first"}


def describe_slots(choice: Choice) -> list[str]:
    """Return a reason for each slot of a choice."""
    slots = Counter((pattern_of(layer.path), layer.role) for layer in choice.ordered)
    return [describe_slot(pattern, role, count) for (pattern, role), count in slots.items()]


def describe_expert_stacks(experts: Sequence[Layer], parameter_paths: Collection[str]) -> list[str]:
    """Return a reason for each stack of fused experts: their number, their layout, fused projections and a bias."""
    reasons = []
    for pattern, layer in {pattern_of(layer.path): layer for layer in experts}.items():
        owner, _, leaf = layer.path.rpartition(".")
        has_bias = any(f"{owner}.{name}" in parameter_paths for name in (f"{leaf}_bias", f"{leaf}_b", "bias"))
        facts = (
            f"{layer.shape[0]} experts in one parameter",
            LAYOUTS.get(layer.layout or "", ""),
            "gate and up in one, adapted together" if layer.role == "expert.gate_up" else "",
            "with a bias, which is left alone" if has_bias else "",
        )
        reasons.append(f"{pattern}: {', '.join(filter(None, facts))}")
    return reasons


def describe_left_out(tower: Tower, layers: Sequence[Layer], *, has_blocks: bool) -> list[str]:
    """Return a reason for each group of layers left out of a model whose adapters go to ``tower``."""
    others = sorted({layer.tower for layer in layers} - {tower})
    reasons = [f"only the {tower} tower is adapted; left alone: {', '.join(others)}"] if others else []
    if has_blocks:
        reasons.append("only layers in the repeated blocks are adapted")
    routers = Counter(layer.role for layer in layers if layer.role == "moe.router" and layer.kind == "other")
    never = Counter(layer.role for layer in layers if layer.role in NEVER and layer.kind in ADAPTABLE_KINDS) + routers
    reasons += [f"left out: {count_layers(count, role)}" for role, count in sorted(never.items())]
    own = [layer for layer in layers if layer.tower == tower]
    reasons += [f"left out: {group}" for group in _count_unreached(own)]
    grouped = sum(layer.role == "conv.spatial" and RANK % layer.groups > 0 for layer in layers)
    if grouped:
        reasons.append(f"left out: {count_layers(grouped)} whose groups do not divide rank {RANK}")
    heads = sum(layer.kind == "multihead_attention" for layer in own)
    if heads:
        reasons.append(f"left out: {heads} nn.MultiheadAttention modules, whose parts are never called")
    return reasons


def _count_unreached(own: Sequence[Layer]) -> Iterator[str]:
    """Yield the number of layers of the tower that no gradient reaches, by cause."""
    dead = sum(layer.live is False and not layer.bypassed and layer.kind in ADAPTABLE_KINDS for layer in own)
    if dead:
        yield f"{count_layers(dead)} known to get no gradient"
    bypassed = Counter(layer.bypassed for layer in own if layer.bypassed)
    for location, count in sorted(bypassed.items()):
        yield f"{count_layers(count)} never called, whose weight is read at {location}"
    fused = Counter((layer.kernel, layer.role) for layer in own if layer.kernel)
    for (kernel, role), count in sorted(fused.items()):
        yield f"{count_layers(count, role)} bypassed under {kernel}"
