"""DoRA: a weight is split into a magnitude for each output feature and a direction, and LoRA updates the direction.

The updated weight is ``m * (W + scaling * B @ A) / n``, where ``n`` is the norm of each output feature's part of
``W + scaling * B @ A``, a constant for the gradient, and ``m`` is learned and starts as ``n``. With several adapters
each rescales the weight that the others before it made, but ``n`` is always that of the base weight.

The names are PEFT's (``lora_magnitude_vector``). Source of the method: arXiv:2402.09353.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...domain.vocabulary import Kind
from .base_layer import adapter_dtype, features_of, first_tensor, offload_device
from .low_rank import LinearFactor
from .planned import PlannedAdapter
from .wrappers import MAGNITUDE, AdapterLayer, Child, init_module, state_of

PACKED_BY_BITSANDBYTES = ("Params4bit", "Int8Params")
"""The classes of its weights."""


class Magnitude(nn.Module):
    """The learned magnitudes of one adapter, in PEFT's shape: (out,), or (1, out, 1, ...) of a convolution."""

    weight: nn.Parameter

    def __init__(self, shape: tuple[int, ...], like: torch.Tensor) -> None:
        init_module(self)
        weight = torch.empty(shape, device=like.device, dtype=adapter_dtype(like.dtype))
        self._parameters["weight"] = nn.Parameter(weight)

    def forward(self, norms: torch.Tensor) -> torch.Tensor:
        """Return ``m / n`` for norms (out,); a feature whose weights are all zero has no direction, and stays."""
        is_zero = norms == 0
        ratio = self.weight.flatten() / norms.masked_fill(is_zero, 1.0)
        return ratio.masked_fill(is_zero, 1.0)


class DoraLayer(AdapterLayer):
    """What DoRA needs of a LoRA layer, and adds to it; each adapter on the layer may use it or not."""

    scaling: dict[str, float]

    @property
    def use_dora(self) -> dict[str, bool]:
        """Whether each adapter on this layer uses DoRA."""
        return {name: planned.use_dora for name, planned in self.planned.items()}

    def decompose(self, output: torch.Tensor, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the layer's output with an adapter's update, each feature but its bias rescaled to its magnitude.

        As in PEFT, what the base weight contributes is taken from ``output``; with dropout it is computed again, from
        the input that the update sees.

        Args:
            output: Output of the base layer, and of the adapters before this one.
            x: Input of the layer.
            adapter: Name of the adapter.
        """
        base: Any = self.base()
        kind, first = self.planned[adapter].kind, self.lora_A[adapter]
        x, weight = x.to(first.weight.dtype), dense_weight(base)
        per_feature = (-1, *(1,) * (weight.ndim - 2)) if kind.startswith("conv") else (-1,)
        ratio = self.magnitude_ratio(adapter, weight).view(per_feature)
        dropouts: Any = self._modules.get("lora_dropout")
        if self.training and dropouts is not None and adapter in dropouts:
            x = dropouts[adapter](x)
            own = _run_without_bias(base, kind, x, weight.to(x.dtype))
        else:
            bias = getattr(base, "bias", None)
            own = output if bias is None else output - bias.view(per_feature)
        update = self.lora_B[adapter](first(x)) * self.scaling[adapter]
        result: torch.Tensor = output + (ratio - 1) * own + ratio * update
        return result

    def rescaled(self, weight: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return an updated weight with each output feature's part rescaled to its magnitude, in its own layout."""
        kind = self.planned[adapter].kind
        ratio = self.magnitude_ratio(adapter, dense_weight(self.base()))
        rows = _rows(weight, kind) * ratio[:, None]
        return rows.view(weight.shape) if kind.startswith("conv") else _rows(rows, kind)

    def magnitude_ratio(self, adapter: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the magnitude of each output feature over its norm, (out,)."""
        with torch.no_grad():
            norms = norms_of(weight, self._product(adapter) * self.scaling[adapter], self.planned[adapter].kind)
        ratio: torch.Tensor = self.lora_magnitude_vector[adapter](norms)
        return ratio

    def _product(self, adapter: str) -> torch.Tensor:
        """Return ``B @ A``, (out, everything else)."""
        if self.planned[adapter].kind in ("linear", "transposed_linear"):
            first, second = self.lora_A[adapter], self.lora_B[adapter]
            if _is_gathered(first) or _is_gathered(second):
                weight: torch.Tensor = first.weight
                result = second(first(torch.eye(first.in_features, device=weight.device, dtype=weight.dtype)))
                return result.T  # type: ignore[no-any-return]
        return product_of(*self.factors(adapter))

    def factors(self, adapter: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Return an adapter's ``A`` and ``B``."""
        return self.lora_A[adapter].weight, self.lora_B[adapter].weight


def create_magnitude(base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
    """Create the magnitudes of an adapter, uninitialised; none without DoRA."""
    if not planned.use_dora:
        return {}
    like: Any = first_tensor(base)
    if planned.kind == "embedding":
        return {MAGNITUDE: Magnitude((like.shape[1],), like)}
    _, written = features_of(base, planned.kind)
    shape = (1, written, *(1,) * (like.ndim - 2)) if planned.kind.startswith("conv") else (written,)
    return {MAGNITUDE: Magnitude(shape, like)}


def fill_magnitude(parts: Mapping[str, Child], base: nn.Module, planned: PlannedAdapter) -> None:
    """Set the magnitudes of an adapter, if it has any, to the norms of the weight that its factors make."""
    magnitude: Any = parts.get(MAGNITUDE)
    if magnitude is not None and not magnitude.weight.is_meta:
        first, second, *_ = state_of(parts).values()
        with torch.no_grad():
            norms = norms_of(dense_weight(base), product_of(first, second) * planned.scaling, planned.kind)
        magnitude.weight.data.copy_(norms.view(magnitude.weight.shape))


def product_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return ``B @ A``, (out, everything else).

    With groups of a convolution, this is not what the factors compute. It is PEFT's all the same, so that files mean
    the same.
    """
    r = len(first)
    return second.reshape(-1, r) @ first.reshape(r, -1)


def norms_of(weight: torch.Tensor, update: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return the norm of each output feature's part of an updated weight, (out,)."""
    rows = _rows(weight, kind).to(update.dtype)
    norms: torch.Tensor = torch.linalg.vector_norm(rows + update.view(rows.shape), dim=1)
    return norms


def _is_gathered(factor: Any) -> bool:
    """Return whether a factor may have its weight in its own forward alone, as under FSDP and ZeRO-3."""
    return type(factor) is not LinearFactor or bool(factor._forward_pre_hooks)  # noqa: SLF001 - as low_rank asks


def has_dense_weight(base: Any) -> bool:
    """Return whether ``dense_weight`` can read a layer: unquantised, or by HQQ, torchao or bitsandbytes, as in PEFT.

    A weight that accelerate offloads is there in the forward of its layer alone.
    """
    if offload_device(base) is not None:
        return False
    weight = getattr(base, "weight", None)
    is_float = isinstance(weight, torch.Tensor) and weight.is_floating_point()
    return is_float or hasattr(base, "W_q") or type(weight).__name__ in PACKED_BY_BITSANDBYTES


def dense_weight(base: Any) -> torch.Tensor:
    """Return the weight of a layer in floating point, of a quantised one dequantised."""
    weight: Any = base.dequantize() if hasattr(base, "W_q") else base.weight  # of HQQ, or another's
    if type(weight) not in (nn.Parameter, torch.Tensor):  # first, as compilers cannot trace what follows
        if type(weight).__module__.startswith("torchao."):
            weight = weight.dequantize()
        elif type(weight).__name__ in PACKED_BY_BITSANDBYTES:
            weight = _read_bitsandbytes(base, weight)
    return weight  # type: ignore[no-any-return]


def _read_bitsandbytes(base: Any, weight: Any) -> Any:
    from bitsandbytes import functional as packed  # noqa: PLC0415 - installed where there is such a layer

    if type(weight).__name__ == "Params4bit":
        return packed.dequantize_4bit(weight.data, weight.quant_state)
    scales = weight.SCB if base.state.SCB is None else base.state.SCB
    return packed.int8_vectorwise_dequant(weight.data, scales.to(weight.device))


def _rows(weight: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return a weight as (out, everything else); of a linear or an embedding, the same again leads back."""
    return weight.T if kind in ("transposed_linear", "embedding") else weight.flatten(1)


def _run_without_bias(base: Any, kind: Kind, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if kind.startswith("conv"):
        return base._conv_forward(x, weight, None)  # type: ignore[no-any-return]  # noqa: SLF001 - with its padding mode
    return functional.linear(x, _rows(weight, kind))
