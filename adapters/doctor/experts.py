"""Join the factors of single experts into those of the one parameter that has all experts now."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import torch

from ...domain.layers import Layer
from ...domain.patterns import find_indices
from ...errors import InvalidConfig
from ..config import LoraConfig
from ..injection.plan import strengths
from .findings import Case
from .stored import Factors

Tensors = Mapping[str, torch.Tensor]


class Joined(NamedTuple):
    """The factors of one parameter with all experts.

    Attributes:
        path: Path of the parameter.
        rank: Rank of each expert: of the parts of a fused projection together.
        alpha: The alpha with which it is scaled as its parts were.
        first: The factor ``A``, expert by expert.
        second: The factor ``B``, the experts of each rank together.
    """

    path: str
    rank: int
    alpha: float
    first: torch.Tensor
    second: torch.Tensor


def join_experts(case: Case, config: LoraConfig, tensors: Tensors) -> list[Joined]:
    """Return the joined factors of all parameters whose experts the adapter has one by one, in the model's order.

    Raises:
        InvalidConfig: If an expert or a part lacks, or they differ in rank or scale.
    """
    groups: dict[str, dict[tuple[int, int], Factors]] = defaultdict(dict)
    for factors in case.adapter.factors.values():
        if case.is_fused(factors):
            path = case.path_of(factors)
            part = case.rank_part(factors)
            groups[path][part, find_indices(factors.path)[-1]] = factors
    layers = case.base.layers if case.base else {}
    return [_join(layers[path], groups[path], config, tensors) for path in layers if path in groups]


def _join(layer: Layer, group: Mapping[tuple[int, int], Factors], config: LoraConfig, tensors: Tensors) -> Joined:
    experts, parts = layer.shape[0], 1 + max(part for part, _ in group)
    wanted = {(part, expert) for part in range(parts) for expert in range(experts)}
    known = strengths(config, [factors.path for factors in group.values()])
    if (
        {*group} != wanted
        or len({*known}) != 1
        or any(f.pair is None or f.ranks[0] != known[0][0] for f in group.values())
    ):
        message = f"The factors of {layer.path} cannot be joined: they have to be there for {parts} x {experts} experts"
        raise InvalidConfig(f"{message}, with one rank and alpha.", path=layer.path)
    firsts, seconds = [], []
    for expert in range(experts):
        keys = [group[part, expert].keys for part in range(parts)]
        firsts.append(torch.cat([tensors[one["lora_A.weight"]] for one in keys]))
        blocks = (tensors[one["lora_B.weight"]] for one in keys)
        seconds.append(torch.block_diag(*blocks))  # type: ignore[no-untyped-call]
    rank, _, scaling = known[0]
    joint = rank * parts
    second = torch.stack(seconds, 2).flatten(1)  # (out, rank, experts)
    alpha = scaling * (math.sqrt(joint) if config.use_rslora else joint)
    return Joined(layer.path, joint, alpha, torch.cat(firsts), second)
