"""How many parameters a choice trains: so many per rank, and so many whatever the rank (as peft 0.21.2 builds them)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from .scans import Layer
from .selection import Choice
from .vocabulary import CONV_KINDS


def count_per_rank(choice: Choice, gains: Mapping[str, int]) -> int:
    """Return the parameters each rank adds; none for a method without ranks."""
    if choice.family != "LORA":
        return 0
    return sum(size_per_rank(layer) + gains.get(layer.path, 0) for layer in choice.layers)


def count_gains(layers: Iterable[Layer], parameter_paths: Iterable[str]) -> dict[str, int]:
    """Return how many values per channel each convolution trains beside weight and bias, such as a scaled one's gain.

    PEFT makes both factors of a convolution's adapter of the convolution's own class, so each has as many.
    """
    owners = Counter(path.rpartition(".")[0] for path in parameter_paths if not path.endswith((".weight", ".bias")))
    return {layer.path: owners[layer.path] for layer in layers if layer.kind in CONV_KINDS and owners[layer.path]}


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


def count_fixed(choice: Choice, norm_sizes: Mapping[str, int], gains: Mapping[str, int]) -> int:
    """Return the parameters trained whatever the rank, heads aside."""
    if choice.family == "LORA":
        return sum(gains.get(layer.path, 0) * (layer.out_features or 0) for layer in choice.layers)
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
