"""The two low-rank factors, created without the default initialisation that LoRA would overwrite at once."""

import math
from typing import Any

import torch
from torch import nn

from .blank import make_blank

Initialisation = bool | str
"""``init_lora_weights``: ``True``, ``False`` or ``"gaussian"``."""

CONV_CLASSES: dict[str, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
}


CONV_FIELDS = ("kernel_size", "stride", "padding", "dilation", "padding_mode", "_reversed_padding_repeated_twice")
"""How a convolution walks over its input."""


class LinearFactor(nn.Linear):
    """A bias-free linear map, (written, read), whose weight is as allocated."""

    def __init__(self, read: int, written: int, device: torch.device, dtype: torch.dtype) -> None:
        make_blank(self, in_features=read, out_features=written)
        weight = nn.Parameter(torch.empty((written, read), device=device, dtype=dtype))
        self._parameters.update(weight=weight, bias=None)


class _ConvFactor(nn.Module):
    """A bias-free convolution whose weight is as allocated."""

    def __init__(self, shape: tuple[int, ...], groups: int, walk: dict[str, Any], where: dict[str, Any]) -> None:
        written, read = shape[0], shape[1] * groups
        kept = {"transposed": False, "output_padding": (0,) * (len(shape) - 2), "groups": groups}
        make_blank(self, in_channels=read, out_channels=written, **kept, **walk)
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
    """Return ``A`` (r, read) and ``B`` (written, r), uninitialised, on the device of ``like``."""
    device, dtype = like.device, adapter_dtype(like.dtype)
    return LinearFactor(read, r, device, dtype), LinearFactor(r, written, device, dtype)


def is_plain_conv(base: nn.Module) -> bool:
    """Tell whether a convolution does nothing but convolve, with its own fields."""
    return any(type(base).forward is known.forward for known in CONV_CLASSES.values())


def conv_factors(base: Any, kind: str, r: int) -> tuple[nn.Module, nn.Module]:
    """Return ``A``, a full convolution into ``r`` channels, and ``B``, a grouped one with a kernel of one.

    ``A`` walks over its input exactly as ``base`` does, dilation and padding mode included (peft 0.21.2 drops both).
    """
    where: dict[str, Any] = {"device": base.weight.device, "dtype": adapter_dtype(base.weight.dtype)}
    factor, sizes = CONV_FACTORS[kind], base.kernel_size
    walk = {name: base.__dict__[name] for name in CONV_FIELDS}
    first = factor((r, base.in_channels, *sizes), 1, walk, where)
    ones = (1,) * len(sizes)
    point = dict(zip(CONV_FIELDS, (ones, ones, (0,) * len(sizes), ones, "zeros", (0, 0) * len(sizes)), strict=True))
    return first, factor((base.out_channels, r // base.groups, *ones), base.groups, point, where)


def initialise(first: torch.Tensor, second: torch.Tensor, how: Initialisation) -> None:
    """Fill ``A`` and ``B`` in place, with PEFT's distributions (``reset_lora_parameters``, 0.21.2).

    ``True``: Kaiming uniform with ``a=sqrt(5)`` and zeros, the reference of arXiv:2106.09685. ``"gaussian"``: normal
    with ``std=1/r`` and zeros. ``False``: both uniform, so that the adapter does something from the start.
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


def initialise_embedding(first: torch.Tensor, second: torch.Tensor, how: Initialisation) -> None:
    """Fill the factors of an embedding in place: ``A`` zeros and ``B`` normal; both normal if ``how`` is ``False``."""
    if first.is_meta:
        return
    nn.init.normal_(second)
    if how:
        nn.init.zeros_(first)
    else:
        nn.init.normal_(first)
