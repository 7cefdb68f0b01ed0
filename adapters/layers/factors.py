"""The two low-rank factors of LoRA, and the sizes of the layers they adapt."""

import math
from typing import Any

import torch
from torch import nn

from .base_layer import init_module

CONV_CLASSES: dict[str, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
}
CONV_FIELDS = ("kernel_size", "stride", "padding", "dilation", "padding_mode", "_reversed_padding_repeated_twice")
"""The attributes by which a convolution walks over its input."""


class LinearFactor(nn.Linear):
    """A bias-free linear layer with an unfilled weight: LoRA would overwrite the default initialisation at once."""

    def __init__(self, read: int, written: int, device: torch.device, dtype: torch.dtype) -> None:
        init_module(self, in_features=read, out_features=written)
        weight = nn.Parameter(torch.empty((written, read), device=device, dtype=dtype))
        self._parameters.update(weight=weight, bias=None)


class _ConvFactor(nn.Module):
    """A bias-free convolution with an unfilled weight."""

    def __init__(self, shape: tuple[int, ...], groups: int, walk: dict[str, Any], where: dict[str, Any]) -> None:
        channels = {"in_channels": shape[1] * groups, "out_channels": shape[0], "groups": groups}
        init_module(self, **channels, **walk, transposed=False, output_padding=(0,) * (len(shape) - 2))
        self._parameters.update(weight=nn.Parameter(torch.empty(shape, **where)), bias=None)


class Conv1dFactor(_ConvFactor, nn.Conv1d):
    """A bias-free 1-D convolution."""


class Conv2dFactor(_ConvFactor, nn.Conv2d):
    """A bias-free 2-D convolution."""


class Conv3dFactor(_ConvFactor, nn.Conv3d):
    """A bias-free 3-D convolution."""


CONV_FACTORS: dict[str, type[_ConvFactor]] = {
    "conv1d": Conv1dFactor,
    "conv2d": Conv2dFactor,
    "conv3d": Conv3dFactor,
}


def adapter_dtype(base: torch.dtype) -> torch.dtype:
    """Return the dtype of the factors: float32 for half-precision bases, as with PEFT's ``autocast_adapter_dtype``."""
    return base if base in (torch.float32, torch.float64) else torch.float32


def linear_factors(read: int, written: int, r: int, like: torch.Tensor) -> tuple[nn.Linear, nn.Linear]:
    """Create ``A`` (r, read) and ``B`` (written, r), uninitialised, on the device of ``like``."""
    device, dtype = like.device, adapter_dtype(like.dtype)
    return LinearFactor(read, r, device, dtype), LinearFactor(r, written, device, dtype)


def conv_factors(base: Any, kind: str, r: int) -> tuple[nn.Module, nn.Module]:
    """Create ``A``, a full convolution into ``r`` channels, and ``B``, a grouped one with a kernel of one.

    ``A`` walks over its input exactly as ``base`` does, dilation and padding mode included (peft 0.21.2 drops both).
    """
    where: dict[str, Any] = {"device": base.weight.device, "dtype": adapter_dtype(base.weight.dtype)}
    factor, sizes = CONV_FACTORS[kind], base.kernel_size
    walk = {name: base.__dict__[name] for name in CONV_FIELDS}
    first = factor((r, base.in_channels, *sizes), 1, walk, where)
    ones = (1,) * len(sizes)
    point = dict(zip(CONV_FIELDS, (ones, ones, (0,) * len(sizes), ones, "zeros", (0, 0) * len(sizes)), strict=True))
    return first, factor((base.out_channels, r // base.groups, *ones), base.groups, point, where)


def initialise(first: torch.Tensor, second: torch.Tensor, *, how: bool | str) -> None:
    """Fill ``A`` and ``B`` in place, with PEFT's distributions (``reset_lora_parameters``, 0.21.2).

    ``True``: Kaiming uniform with ``a=sqrt(5)`` and zeros, the reference of arXiv:2106.09685. ``"gaussian"``: normal
    with ``std=1/r`` and zeros. ``False``: both uniform, so that the first update is not zero.
    """
    if first.is_meta:
        return
    if how == "gaussian":
        nn.init.normal_(first, std=1 / first.shape[0])
    else:
        nn.init.kaiming_uniform_(first, a=math.sqrt(5))
    if how:  # fresh zero pages come from the system unwritten, which costs a sixth of writing zeros
        second.data = torch.zeros(second.shape, device=second.device, dtype=second.dtype)
    else:
        nn.init.kaiming_uniform_(second, a=math.sqrt(5))


def initialise_embedding(first: torch.Tensor, second: torch.Tensor, *, how: bool | str) -> None:
    """Fill the factors of an embedding in place: ``A`` zeros and ``B`` normal; both normal if ``how`` is ``False``."""
    if first.is_meta:
        return
    nn.init.normal_(second)
    if how:
        nn.init.zeros_(first)
    else:
        nn.init.normal_(first)


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


def is_plain_conv(base: nn.Module) -> bool:
    """Return whether a convolution's forward is PyTorch's own."""
    return any(type(base).forward is known.forward for known in CONV_CLASSES.values())
