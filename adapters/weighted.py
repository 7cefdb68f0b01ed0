"""Weighted sums of LoRA adapters as new adapters (PEFT's ``add_weighted_adapter``)."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..errors import InvalidConfig
from ..targets import TargetSpec
from .config import AdapterConfig, LoraConfig
from .layer import AdapterLayer, state_of
from .lora import LoraLayer
from .prepared import Part, Prepared

WAYS = ("cat", "linear")


def combine(
    layers: Iterable[tuple[str, AdapterLayer]],
    configs: Sequence[AdapterConfig],
    adapters: Sequence[str],
    weights: Sequence[float],
    name: str,
    how: str,
) -> Prepared:
    """Return the weighted sum of adapters, built from the layers that carry any of them.

    Args:
        layers: All adapted layers of the model, with their paths.
        configs: The configurations of the adapters.
        adapters: Their names.
        weights: One for each.
        name: Of the new adapter.
        how: ``cat`` or ``linear``.

    Raises:
        InvalidConfig: If it cannot be done, naming the layer or the value and the way out.
    """
    if how not in WAYS:
        raise InvalidConfig(f"combination_type={how!r} is not supported: give one of {', '.join(map(repr, WAYS))}.")
    if len(weights) != len(adapters):
        raise InvalidConfig(f"{len(weights)} weights for {len(adapters)} adapters: give one for each.")
    if any(not isinstance(config, LoraConfig) for config in configs):
        raise InvalidConfig("add_weighted_adapter sums LoRA adapters only: IA3 multiplies, and has no weighted sum.")
    if any(config.modules_to_save for config in configs):
        raise InvalidConfig("add_weighted_adapter cannot sum modules that are trained in full (modules_to_save).")
    parts = []
    for path, layer in layers:
        shares = [(each, weight) for each, weight in zip(adapters, weights, strict=True) if each in layer.adapters()]
        if shares and isinstance(layer, LoraLayer):
            parts.append(_sum(path, layer, shares, how))
    return Prepared(name, _config_for(parts, configs[0]), tuple(parts), {})


def _sum(path: str, layer: LoraLayer, shares: Sequence[tuple[str, float]], how: str) -> Part:
    planned = [layer.planned[adapter] for adapter, _ in shares]
    ranks = [each.r for each in planned]
    if how == "linear" and len({*ranks}) > 1:
        message = f"combination_type='linear' needs equal ranks, and {path!r} has {', '.join(map(str, ranks))}"
        raise InvalidConfig(f"{message}: give combination_type='cat'.", path=path)
    factors = [_with_rank_first(layer, adapter) for adapter, _ in shares]
    strengths = [weight * each.scaling for (_, weight), each in zip(shares, planned, strict=True)]
    r = sum(ranks) if how == "cat" else ranks[0]
    first, second = (_cat if how == "cat" else _add)(factors, strengths)
    new = planned[0]._replace(r=r, alpha=r, scaling=1.0)
    children = layer.parts(layer.base(), new)
    targets: list[Any] = [*state_of(children).values()]
    with torch.no_grad():
        for target, value, stacked in zip(targets, (first, second), _rank_dimensions(layer), strict=True):
            target.copy_(value.movedim(0, stacked).reshape(target.shape))
    return Part(new, type(layer), children)


def _with_rank_first(layer: LoraLayer, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both factors with the rank as their first dimension; those of experts keep the experts apart."""
    experts = layer.experts()
    r = layer.planned[adapter].r
    first, second = (factor.detach() for factor in layer.factors(adapter))
    if experts > 1:
        first, second = first.view(experts, r, -1), second.view(-1, r, experts)
    a, b = _rank_dimensions(layer)
    return first.movedim(a, 0), second.movedim(b, 0)


def _rank_dimensions(layer: LoraLayer) -> tuple[int, int]:
    return (1, 1) if layer.experts() > 1 else (0, 1)


def _cat(
    factors: Sequence[tuple[torch.Tensor, torch.Tensor]], strengths: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Set the factors side by side: their product is the sum of the products."""
    first = torch.cat([a * strength for (a, _), strength in zip(factors, strengths, strict=True)])
    return first, torch.cat([b for _, b in factors])


def _add(
    factors: Sequence[tuple[torch.Tensor, torch.Tensor]], strengths: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add ``A`` to ``A`` and ``B`` to ``B``, each with the root of its strength; the sign goes to ``A``."""
    roots = [math.sqrt(abs(strength)) for strength in strengths]
    first = sum(a * math.copysign(root, s) for (a, _), root, s in zip(factors, roots, strengths, strict=True))
    return first, sum(b * root for (_, b), root in zip(factors, roots, strict=True))  # type: ignore[return-value]


def _config_for(parts: Sequence[Part], like: AdapterConfig) -> AdapterConfig:
    """Return a configuration that builds just these layers with these ranks again."""
    # The output projection of an attention is named by the attention, and so are its other projections.
    attentions = {part.planned.named for part in parts if part.planned.kind == "multihead_attention"}
    modules, bare, ranks = [], [], {}
    for planned, _, _ in parts:
        is_bare = bool(planned.parameter) and planned.path not in attentions
        key = f"{planned.path}.{planned.parameter}" if is_bare else planned.named
        (bare if is_bare else modules).append(key)
        ranks[key] = planned.r
    [(r, _)] = Counter(ranks.values()).most_common(1)
    pattern = {f"^{re.escape(path)}": rank for path, rank in ranks.items() if rank != r}
    spec = TargetSpec(target_modules=(*dict.fromkeys(modules),) or None, target_parameters=(*bare,) or None)
    plain = replace(like, target_modules=None, exclude_modules=None, target_parameters=None)  # type: ignore[call-arg]
    narrowed = {"layers_to_transform": None, "layers_pattern": None, "use_rslora": False, "bias": "none"}
    own = {"r": r, "lora_alpha": r, "rank_pattern": pattern, "alpha_pattern": pattern}
    return replace(plain.with_spec(spec), **narrowed, **own)
