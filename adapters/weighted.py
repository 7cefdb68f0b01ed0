"""Weighted sums of LoRA adapters as new adapters (PEFT's ``add_weighted_adapter``)."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from ..discovery import CONV_KINDS
from ..errors import InvalidConfig
from .checks import check_rank
from .config import AdapterConfig, LoraConfig
from .injection.apply import Part, Prepared
from .layers.lora import LoraLayer
from .layers.wrappers import AdapterLayer, PlannedAdapter, state_of

COMBINATIONS = ("svd", "cat", "linear")
ELSEWHERE = ("ties", "dare", "magnitude_prune")
"""Beginnings of PEFT's other combinations, which drop values at random or by their sign."""


def combine(
    layers: Iterable[tuple[str, AdapterLayer]],
    configs: Sequence[AdapterConfig],
    weights: Sequence[tuple[str, float]],
    name: str,
    how: tuple[str, int | None],
) -> Prepared:
    """Build the weighted sum of adapters from the layers that carry any of them.

    Args:
        layers: All adapted layers of the model, with their paths.
        configs: The configurations of the adapters.
        weights: The names of the adapters, each with its weight.
        name: Name of the new adapter.
        how: ``svd``, ``cat`` or ``linear``, and the rank of the result of ``svd``; the largest of the adapters' if
            ``None``.

    Raises:
        InvalidConfig: If the adapters cannot be summed, naming the layer or the value and the way out.
    """
    _check_combination(*how)
    like = configs[0]
    if not isinstance(like, LoraConfig):
        raise InvalidConfig("add_weighted_adapter sums LoRA adapters only: IA3 multiplies, and has no weighted sum.")
    if any(getattr(config, "use_dora", False) for config in configs):
        way_out = "Activate them together, or merge them one after the other."
        raise InvalidConfig(f"add_weighted_adapter cannot sum DoRA adapters: magnitudes do not add up. {way_out}")
    if len({getattr(config, "lora_bias", False) for config in configs}) > 1:
        raise InvalidConfig("add_weighted_adapter cannot sum adapters with and without lora_bias=True.")
    if any(config.modules_to_save for config in configs):
        raise InvalidConfig("add_weighted_adapter cannot sum modules that are trained in full (modules_to_save).")
    if any(getattr(config, "trainable_token_indices", None) for config in configs):
        raise InvalidConfig("add_weighted_adapter cannot sum rows of embeddings (trainable_token_indices).")
    parts = []
    for path, layer in layers:
        shares = [(adapter, weight) for adapter, weight in weights if adapter in layer.adapters()]
        if shares and isinstance(layer, LoraLayer):
            parts.append(_sum(path, layer, shares, how))
    return Prepared(name, _config_for([part.planned for part in parts], like), tuple(parts), {})


def _check_combination(combination_type: str, svd_rank: int | None) -> None:
    """Reject combinations that there are not, with the way to those of PEFT."""
    if combination_type not in COMBINATIONS:
        way_out = f"give one of {', '.join(map(repr, COMBINATIONS))}."
        if str(combination_type).startswith(ELSEWHERE):
            way_out = f"{way_out} For this one, combine them with peft, save, and load the result here."
        raise InvalidConfig(f"combination_type={combination_type!r} is not supported: {way_out}")
    if svd_rank is not None:
        check_rank("svd_rank", svd_rank)
        if combination_type != "svd":
            raise InvalidConfig(f"svd_rank={svd_rank} is for combination_type='svd', not {combination_type!r}.")


def _sum(path: str, layer: LoraLayer, shares: Sequence[tuple[str, float]], how: tuple[str, int | None]) -> Part:
    """Build the weighted sum of the adapters on one layer."""
    combination_type, svd_rank = how
    planned = [layer.planned[adapter] for adapter, _ in shares]
    ranks = [each.r for each in planned]
    if combination_type == "linear" and len({*ranks}) > 1:
        message = f"combination_type='linear' needs equal ranks, and {path!r} has {', '.join(map(str, ranks))}"
        raise InvalidConfig(f"{message}: give combination_type='cat'.", path=path)
    strengths = [weight * layer.scaling[adapter] for adapter, weight in shares]
    firsts, seconds = zip(*(_with_rank_first(layer, adapter) for adapter, _ in shares), strict=True)
    if combination_type != "linear":  # the product of concatenated factors is the sum of the products
        r = sum(ranks)
        first = torch.cat([a * strength for a, strength in zip(firsts, strengths, strict=True)])
        second = torch.cat(seconds)
        if combination_type == "svd":
            r = svd_rank or max(ranks)
            first, second = _truncate(path, first, second, r)
    else:
        r = ranks[0]
        first, second = _add_factors(firsts, seconds, strengths)
    new = planned[0]._replace(r=r, scaling=1.0)
    children = layer.create_parts(layer.base(), new)
    targets: list[Any] = [*state_of(children).values()]
    with torch.no_grad():
        for target, value in zip(targets, (first, second), strict=False):
            target.copy_(value.movedim(0, 1).reshape(target.shape))
        if new.lora_bias:
            biases = [layer.lora_B[adapter].bias for adapter, _ in shares]
            targets[2].copy_(sum(bias * strength for bias, strength in zip(biases, strengths, strict=True)))
    return Part(new, type(layer), children)


def _add_factors(
    firsts: Sequence[torch.Tensor], seconds: Sequence[torch.Tensor], strengths: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of the factors: each takes the root of its strength, and ``A`` its sign."""
    roots = [math.sqrt(abs(strength)) for strength in strengths]
    signed = [math.copysign(root, strength) for root, strength in zip(roots, strengths, strict=True)]
    first = torch.stack([a * root for a, root in zip(firsts, signed, strict=True)]).sum(0)
    second = torch.stack([b * root for b, root in zip(seconds, roots, strict=True)]).sum(0)
    return first, second


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
    if first.shape[1] != second.shape[2]:
        message = f"combination_type='svd' cannot sum {path!r}, a grouped convolution: give 'cat'."
        raise InvalidConfig(message, path=path)
    dtype = first.dtype
    read = first.movedim(1, 0).flatten(2).float()  # (experts, rank, in)
    written = second.movedim(2, 0).flatten(2).float()  # (experts, rank, out)
    (read_basis, read_rest), (written_basis, written_rest) = torch.linalg.qr(read.mT), torch.linalg.qr(written.mT)
    left, values, right = torch.linalg.svd(written_rest @ read_rest.mT, full_matrices=False)
    kept = min(r, values.shape[-1])
    new_first = right[:, :kept] @ read_basis.mT
    new_second = (written_basis @ (left[..., :kept] * values[:, None, :kept])).mT
    padding = (0, 0, 0, r - kept)
    new_first, new_second = (functional.pad(each, padding).to(dtype) for each in (new_first, new_second))
    return (
        new_first.movedim(0, 1).reshape(r, *first.shape[1:]),
        new_second.movedim(0, 2).reshape(r, *second.shape[1:]),
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
