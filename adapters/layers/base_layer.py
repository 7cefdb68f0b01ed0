"""A base layer: the facts that decide the shape and the dtype of its adapter, and a forward with other weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ...errors import InvalidConfig


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


def list_computed(module: nn.Module) -> list[str]:
    """Return the names of the tensors that a module computes: parametrized, weight-normed or pruned ones."""
    parametrized: Any = module._modules.get("parametrizations") or ()  # noqa: SLF001 - PyTorch's own name
    own = module._parameters  # noqa: SLF001
    hooked = (name for name, value in module.__dict__.items() if isinstance(value, torch.Tensor) and name not in own)
    return [*parametrized, *hooked]


def offload_device(base: nn.Module) -> torch.device | None:
    """Return the device that accelerate moves a layer's weights to when it runs; ``None`` without offloading."""
    hook = base.__dict__.get("_hf_hook")
    hooks: Any = getattr(hook, "hooks", (hook,))  # one, or several in a row
    return next((torch.device(each.execution_device) for each in hooks if getattr(each, "offload", False)), None)


def count_rows(x: torch.Tensor, samples: Sequence[str]) -> int:
    """Return the number of consecutive rows of each sample of a batch.

    Args:
        x: The input of a layer, of which the rows come first.
        samples: The adapter of each sample.

    Raises:
        InvalidConfig: If the rows cannot be split evenly among the samples.
    """
    if len(x) % len(samples):
        message = f"adapter_names has {len(samples)} names for {len(x)} rows: give one for each sample."
        raise InvalidConfig(message, rows=len(x), names=len(samples))
    return len(x) // len(samples)


def run_with(module: nn.Module, values: Mapping[str, torch.Tensor], args: Any, kwargs: Any) -> Any:
    """Run a module with other values for some of its parameters, given by their names in it.

    FSDP with ``use_orig_params`` sets the gathered values as plain attributes, which hide the parameters that
    ``functional_call`` exchanges: they are taken away meanwhile.
    """
    hidden = []
    for name in values:
        path, _, own = name.rpartition(".")
        holder = module.get_submodule(path).__dict__
        if own in holder:
            hidden.append((holder, own, holder.pop(own)))
    try:
        return functional_call(module, {**values}, args, kwargs)
    finally:
        for holder, own, value in hidden:
            holder[own] = value
