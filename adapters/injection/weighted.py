"""Weighted sums of LoRA adapters as new adapters (PEFT's ``add_weighted_adapter``)."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...discovery import CONV_KINDS
from ...errors import InvalidConfig
from ..config import AdapterConfig, LoraConfig
from ..layers.lora import LoraLayer
from ..layers.parameters import STACKED
from ..layers.planned import PlannedAdapter
from ..layers.saved import SavedModule
from ..layers.wrappers import AdapterLayer, state_of
from .ambient import without_modes
from .apply import Part, Prepared
from .combinations import Combination


@without_modes()
def combine(
    wrappers: Iterable[tuple[str, AdapterLayer | SavedModule]],
    configs: Sequence[AdapterConfig],
    weights: Sequence[tuple[str, float]],
    name: str,
    how: Combination,
) -> Prepared:
    """Build the weighted sum of adapters from the layers that carry any of them.

    A module that one of them trains in full is copied.

    Args:
        wrappers: All wrappers of the model that hold adapters, with their paths.
        configs: The configurations of the adapters.
        weights: The names of the adapters, each with its weight.
        name: Name of the new adapter.
        how: The combination.

    Raises:
        InvalidConfig: If the adapters cannot be summed, naming the layer or the value and the way out.
    """
    like = _check_summable(configs)
    how = how.for_number(len(weights))
    wrappers = [*wrappers]
    saved = _list_saved(wrappers, [adapter for adapter, _ in weights])
    parts = []
    for path, wrapper in wrappers:
        shares = [(adapter, weight) for adapter, weight in weights if adapter in wrapper.adapters()]
        if shares and isinstance(wrapper, LoraLayer):
            parts.append(_sum(path, wrapper, shares, how))
    names = dict.fromkeys(name for each in configs for name in each.modules_to_save or ())
    config = replace(_config_for([part.planned for part in parts], like), modules_to_save=[*names] or None)
    return Prepared(name, config, tuple(parts), deepcopy(saved))  # at once: tied ones stay tied


def _check_summable(configs: Sequence[AdapterConfig]) -> LoraConfig:
    """Reject adapters that have no sum; return the first one's configuration."""
    like = configs[0]
    if not isinstance(like, LoraConfig):
        raise InvalidConfig("add_weighted_adapter sums LoRA adapters only: IA3 multiplies, and has no weighted sum.")
    if any(getattr(config, "use_dora", False) for config in configs):
        way_out = "Activate them together, or merge them one after the other."
        raise InvalidConfig(f"add_weighted_adapter cannot sum DoRA adapters: magnitudes do not add up. {way_out}")
    if names := sorted({config.variant for config in configs if config.variant}):
        raise InvalidConfig(f"add_weighted_adapter sums plain LoRA adapters only, not those with {', '.join(names)}.")
    if len({getattr(config, "lora_bias", False) for config in configs}) > 1:
        raise InvalidConfig("add_weighted_adapter cannot sum adapters with and without lora_bias=True.")
    if any(getattr(config, "trainable_token_indices", None) for config in configs):
        raise InvalidConfig("add_weighted_adapter cannot sum rows of embeddings (trainable_token_indices).")
    return like


def _list_saved(
    wrappers: Sequence[tuple[str, AdapterLayer | SavedModule]], adapters: Sequence[str]
) -> dict[str, nn.Module]:
    """Return the modules that one of the adapters trains in full, by path.

    Raises:
        InvalidConfig: If several of them train one: there is no sum of them.
    """
    saved: dict[str, nn.Module] = {}
    twice = []
    for path, wrapper in wrappers:
        own = [name for name in adapters if isinstance(wrapper, SavedModule) and name in wrapper.adapters()]
        if own:
            saved[path] = wrapper.modules_to_save[own[0]]
        twice += [path] if len(own) > 1 else []
    if twice:
        message = "Cannot add weighted adapters if they target the same module with modules_to_save, but found"
        raise InvalidConfig(f"{message} {len(twice)} such instance(s). The first is {twice[0]!r}.", paths=twice)
    return saved


def _sum(path: str, layer: LoraLayer, shares: Sequence[tuple[str, float]], how: Combination) -> Part:
    """Build the weighted sum of the adapters on one layer."""
    planned = [layer.planned[adapter] for adapter, _ in shares]
    ranks = [each.r for each in planned]
    r = sum(ranks) if how.kind == "cat" else how.svd_rank or max(ranks)
    new = planned[0]._replace(r=r, scaling=1.0, lora_alpha=r, use_rslora=False)
    children = layer.create_parts(layer.base(), new)
    if how.is_product:
        values = _concatenate(layer, shares)
        values = _truncate(path, *values, r) if how.truncates else values
    elif how.truncates:
        values = _decompose(path, layer, shares, how, r)
    elif len({*ranks}) > 1:
        message = f"combination_type={how.kind!r} needs equal ranks, and {path!r} has {', '.join(map(str, ranks))}"
        raise InvalidConfig(f"{message}: give combination_type='cat'.", path=path)
    else:
        values = _sum_factors(layer, shares, how)
    targets: list[Any] = [*state_of(children).values()]
    is_ranked = how.is_product or how.truncates
    with torch.no_grad():
        for target, value in zip(targets, values, strict=False):
            target.copy_((value.movedim(0, 1) if is_ranked else value).reshape(target.shape))
        if new.lora_bias:
            biases = [layer.lora_B[adapter].bias * (weight * layer.scaling[adapter]) for adapter, weight in shares]
            targets[2].copy_(torch.stack(biases).sum(0))
    return Part(new, type(layer), children)


def _sum_factors(
    layer: LoraLayer, shares: Sequence[tuple[str, float]], how: Combination
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of the factors: each takes the root of its strength, and ``A`` its sign."""
    strengths = [weight * layer.scaling[adapter] for adapter, weight in shares]
    roots = [math.sqrt(abs(strength)) for strength in strengths]
    signed = [math.copysign(root, strength) for root, strength in zip(roots, strengths, strict=True)]
    firsts, seconds = zip(*(layer.factors(adapter) for adapter, _ in shares), strict=True)
    return how.sum([a.detach() for a in firsts], signed), how.sum([b.detach() for b in seconds], roots)


def _concatenate(layer: LoraLayer, shares: Sequence[tuple[str, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors one below the other, strengths in ``A``: their product is the sum of the products."""
    firsts, seconds = zip(*(_with_rank_first(layer, adapter) for adapter, _ in shares), strict=True)
    scaled = [a * (weight * layer.scaling[adapter]) for a, (adapter, weight) in zip(firsts, shares, strict=True)]
    return torch.cat(scaled), torch.cat(seconds)


def _truncate(path: str, first: torch.Tensor, second: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of rank ``r`` whose product is closest to that of the given ones, expert by expert.

    The singular values go into ``B``, as in PEFT. They are those of the small product of the triangular factors, since
    the orthogonal ones change no singular value; the sum itself, as large as the base weight, is never computed.

    Args:
        path: Path of the layer, for the error.
        first: (rank, experts, in, *kernel).
        second: (rank, out, experts, *ones).
        r: The rank of the result; factors of a lower rank are filled up with zeros.

    Raises:
        InvalidConfig: If the layer is a grouped convolution.
    """
    _check_ungrouped(path, first, second)
    read = first.movedim(1, 0).flatten(2).float()  # (experts, rank, in)
    written = second.movedim(2, 0).flatten(2).float()  # (experts, rank, out)
    (read_basis, read_rest), (written_basis, written_rest) = torch.linalg.qr(read.mT), torch.linalg.qr(written.mT)
    left, values, right = torch.linalg.svd(written_rest @ read_rest.mT, full_matrices=False)
    return _shaped(right @ read_basis.mT, written_basis @ (left * values[:, None]), first, second, r)


def _decompose(
    path: str, layer: LoraLayer, shares: Sequence[tuple[str, float]], how: Combination, r: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of rank ``r`` closest to the combination of the updates themselves; see ``_truncate``."""
    first, second = _with_rank_first(layer, shares[0][0])
    _check_ungrouped(path, first, second)
    if how.svd_driver and first.device.type != "cuda":
        message = f"svd_driver={how.svd_driver!r} is one of CUDA, and {path!r} is on {first.device.type}: leave it out."
        raise InvalidConfig(message, path=path)
    planned = layer.planned[shares[0][0]]
    deltas = [layer.get_delta_weight(adapter).detach().float() for adapter, _ in shares]
    total = how.sum(deltas, [weight for _, weight in shares])
    is_stack = bool(planned.parameter) and total.ndim == STACKED
    total = total if is_stack else total.flatten(1)[None]
    total = total.mT if planned.fan_in_fan_out or planned.kind == "embedding" else total  # (experts, out, in)
    left, values, right = torch.linalg.svd(total, full_matrices=how.svd_full_matrices, driver=how.svd_driver)
    kept = min(r, values.shape[-1])
    written, read = left[..., :kept] * values[:, None, :kept], right[:, :kept]
    if how.svd_clamp is not None:
        limit = torch.quantile(torch.cat([written.flatten(), read.flatten()]), how.svd_clamp)
        written, read = written.clamp(-limit, limit), read.clamp(-limit, limit)
    return _shaped(read, written, first, second, r)


def _check_ungrouped(path: str, first: torch.Tensor, second: torch.Tensor) -> None:
    """Reject a grouped convolution, whose update is no single matrix."""
    if first.shape[1] != second.shape[2]:
        message = f"combination_type='svd' cannot sum {path!r}, a grouped convolution: give 'cat'."
        raise InvalidConfig(message, path=path)


def _shaped(
    read: torch.Tensor, written: torch.Tensor, first: torch.Tensor, second: torch.Tensor, r: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors (experts, rank, in) and (experts, out, rank), cut or filled up to rank ``r``, shaped as others."""
    padding = (0, 0, 0, max(0, r - read.shape[1]))
    read, written = (functional.pad(each[:, :r], padding).to(first.dtype) for each in (read, written.mT))
    return (
        read.movedim(0, 1).reshape(r, *first.shape[1:]),
        written.movedim(0, 2).reshape(r, *second.shape[1:]),
    )


def _with_rank_first(layer: LoraLayer, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``A`` (r, experts, in) and ``B`` (r, out, experts) of an adapter; a plain layer is one expert.

    ``A`` of a grouped convolution holds the ranks of each group together, and ``B`` has the ranks of one group.
    """
    first, second = (factor.detach() for factor in layer.factors(adapter))
    planned, base = layer.planned[adapter], layer.base()
    experts = len(first) // planned.r
    groups: Any = base.groups if planned.kind in CONV_KINDS else 1
    first = first.reshape(experts * groups, -1, *first.shape[1:])
    second = second.reshape(len(second), -1, experts, *second.shape[2:])
    return first.movedim(1, 0), second.movedim(1, 0)


def _config_for(planned: Sequence[PlannedAdapter], like: LoraConfig) -> LoraConfig:
    """Return a configuration that builds exactly these layers with these ranks."""
    attentions = {each.path for each in planned if each.kind == "multihead_attention"}
    ranks: dict[str, int] = {}
    bare = []
    for each in planned:
        is_bare = bool(each.parameter) and each.path not in attentions
        key = f"{each.path}.{each.parameter}" if is_bare else each.named
        ranks[key] = each.r
        bare += [key] if is_bare else []
    [(r, _)] = Counter(ranks.values()).most_common(1)
    pattern = {f"^{re.escape(path)}": rank for path, rank in ranks.items() if rank != r}
    return replace(
        like,
        target_modules=[path for path in ranks if path not in bare] or None,
        target_parameters=bare or None,
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
        use_rslora=False,
        bias="none",
        r=r,
        lora_alpha=r,
        rank_pattern=pattern,
        alpha_pattern=pattern,
    )
