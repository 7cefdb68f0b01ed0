"""The facts of a base layer that decide the shape and the dtype of its adapter."""

from typing import Any

import torch
from torch import nn


def adapter_dtype(base: torch.dtype) -> torch.dtype:
    """Return the dtype of the factors: float32 for half-precision bases, as with PEFT's ``autocast_adapter_dtype``."""
    return base if base in (torch.float32, torch.float64) else torch.float32


def features_of(layer: Any, kind: str) -> tuple[int, int]:
    """Return the numbers of input and output features, or channels, of a layer."""
    if kind.startswith("conv"):
        return layer.in_channels, layer.out_channels
    if kind == "transposed_linear":
        read, written = layer.weight.shape
        return read, written
    return layer.in_features, layer.out_features


def first_tensor(layer: nn.Module) -> torch.Tensor:
    """Return the weight of a layer, or the first tensor of one whose packed weight has another name."""
    own = layer._parameters.get("weight")  # noqa: SLF001 - in every injected layer
    return own if own is not None else next(iter([*layer.parameters(), *layer.buffers()]))
