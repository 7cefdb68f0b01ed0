"""How many parameters a choice trains: so many per rank, and so many whatever the rank (as peft 0.21.2 builds them)."""

import math
from collections.abc import Mapping

from ...records import Layer
from .specs import Choice


def count_per_rank(choice: Choice) -> int:
    """Return the parameters each rank adds; none for a method without ranks."""
    return sum(map(size_per_rank, choice.layers)) if choice.family == "LORA" else 0


def size_per_rank(layer: Layer) -> int:
    """Return how many parameters each rank of a LoRA adapter on ``layer`` adds.

    A convolution's A keeps its kernel and reads every channel, its B keeps its groups; fused experts have one adapter
    each.
    """
    if layer.kind == "expert_parameter":
        experts, first, second = layer.shape
        return experts * (first + second)
    read, written = layer.in_features or 0, layer.out_features or 0
    return read * math.prod(layer.shape[2:]) + written // layer.groups


def count_fixed(choice: Choice, norm_sizes: Mapping[str, int]) -> int:
    """Return the parameters trained whatever the rank, heads aside."""
    if choice.family == "IA3":
        scaled = set(choice.feedforward)
        return sum((x.in_features if x in scaled else x.out_features) or 0 for x in choice.layers)
    if choice.family == "LN_TUNING":
        return sum(norm_sizes[layer.path] for layer in choice.layers)
    if choice.family == "OSF":
        return sum(map(_small_singular_values, choice.layers))
    return sum(layer.out_features or 0 for layer in choice.layers) if choice.family == "BEFT" else 0


def _small_singular_values(layer: Layer) -> int:
    """OSF keeps the larger half of a matrix's singular values and trains the rest, with their vectors."""
    rows, columns = layer.shape
    trained = min(rows, columns) - min(rows, columns) // 2
    return trained * (rows + columns + 1)
