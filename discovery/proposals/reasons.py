"""What proposals hit, in words."""

from collections import Counter
from collections.abc import Collection, Sequence

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...domain.selection import Choice
from ...wording import describe_slot

WAYS = {"in_out": "input first (transposed)", "out_in": "output first"}


def tell_hit(choice: Choice) -> list[str]:
    """Return a reason per slot that a choice hits."""
    slots = Counter((pattern_of(layer.path), layer.role) for layer in choice.ordered)
    return [describe_slot(pattern, role, count) for (pattern, role), count in slots.items()]


def tell_experts(experts: Sequence[Layer], parameter_paths: Collection[str]) -> list[str]:
    """Return a reason per stack of fused experts: how many, which way round, what is fused, whether with a bias."""
    by_pattern = {pattern_of(layer.path): layer for layer in experts}
    return [_tell_stack(pattern, layer, parameter_paths) for pattern, layer in by_pattern.items()]


def _tell_stack(pattern: str, layer: Layer, parameter_paths: Collection[str]) -> str:
    owner, _, leaf = layer.path.rpartition(".")
    has_bias = any(f"{owner}.{name}" in parameter_paths for name in (f"{leaf}_bias", f"{leaf}_b", "bias"))
    facts = (
        f"{layer.shape[0]} experts in one parameter",
        WAYS.get(layer.layout or "", ""),
        "gate and up in one, adapted together" if layer.role == "expert.gate_up" else "",
        "with a bias, which is left alone" if has_bias else "",
    )
    return f"{pattern}: {', '.join(filter(None, facts))}"
