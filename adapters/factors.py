"""The two low-rank factors, created without the default initialisation that LoRA would overwrite at once."""

import math
from typing import Any

import torch
from torch import nn

Initialisation = bool | str
"""``init_lora_weights``: ``True``, ``False`` or ``"gaussian"``."""

CONV_CLASSES: dict[str, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
}


class _Uninitialised:
    """Mixin: a layer whose constructor leaves its weight as allocated."""

    def reset_parameters(self) -> None:
        """Leave the weight alone; ``initialise`` fills it once."""


class LinearFactor(nn.Linear):
    """A bias-free linear map, (written, read), whose weight is as allocated."""

    def __init__(self, read: int, written: int, device: torch.device, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        # Past nn.Module's assignment, which sorts every value: two factors per layer make it worth while.
        self.__dict__.update(in_features=read, out_features=written)
        weight = nn.Parameter(torch.empty((written, read), device=device, dtype=dtype))
        self._parameters.update(weight=weight, bias=None)


class Conv1dFactor(_Uninitialised, nn.Conv1d):
    """A bias-free 1-D convolution."""


class Conv2dFactor(_Uninitialised, nn.Conv2d):
    """A bias-free 2-D convolution."""


class Conv3dFactor(_Uninitialised, nn.Conv3d):
    """A bias-free 3-D convolution."""


CONV_FACTORS: dict[str, type[nn.Module]] = {
    "conv1d": Conv1dFactor,
    "conv2d": Conv2dFactor,
    "conv3d": Conv3dFactor,
}


def keyed(adapter: str, module: nn.Module) -> nn.ModuleDict:
    """Return ``module`` in a dictionary with one key, without ``ModuleDict``'s checks of what it is given."""
    single = nn.ModuleDict()
    single._modules[adapter] = module  # noqa: SLF001
    return single


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
    where: dict[str, Any] = {"device": base.weight.device, "dtype": adapter_dtype(base.weight.dtype), "bias": False}
    factor = CONV_FACTORS[kind]
    walk = {name: getattr(base, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    first = factor(base.in_channels, r, **walk, **where)
    return first, factor(r, base.out_channels, 1, groups=base.groups, **where)


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
