"""IA3 layers: one learned factor per feature, on what a layer returns, or on what a feed-forward layer reads.

The names are PEFT's (``ia3_l``). Source of the method: arXiv:2205.05638.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from . import foreign
from .factors import adapter_dtype
from .layer import AdapterLayer, Child
from .plan import PlannedAdapter


class IA3Layer(AdapterLayer):
    """A linear layer or a convolution whose features are rescaled."""

    containers = ("ia3_l",)

    @classmethod
    def parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Return the factors: (out, 1) or, feed-forward, (1, in); for a convolution (1, features, 1, ...)."""
        like = foreign.first_tensor(base)
        read, written = foreign.features_of(base, planned.kind)
        features = read if planned.is_feedforward else written
        if planned.kind.startswith("conv"):
            shape: tuple[int, ...] = (1, features, *(1,) * (like.ndim - 2))
        else:
            shape = (1, features) if planned.is_feedforward else (features, 1)
        return {"ia3_l": nn.Parameter(torch.empty(shape, device=like.device, dtype=adapter_dtype(like.dtype)))}

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Start with ones, so that nothing changes; normally distributed if ``how`` is ``False``."""
        factors: Any = parts["ia3_l"]
        if how:
            nn.init.ones_(factors)
        else:
            nn.init.normal_(factors)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the base layer returns, rescaled before or after."""
        adapters = self.answering()
        if not adapters:
            return self.base_layer(x, *args, **kwargs)
        factors = self._factors(adapters)
        if not self._is_convolution():
            factors = factors.flatten()
        if self._is_feedforward():
            return self.base_layer((x * factors).to(x.dtype), *args, **kwargs)
        result = self.base_layer(x, *args, **kwargs)
        return (result * factors).to(result.dtype)

    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the rescaled weight, and the rescaled bias where the result is what is rescaled."""
        base: Any = self.base()
        factors = self._factors(adapters)
        updated = {"weight": (base.weight * self._for_weight(factors)).to(base.weight.dtype)}
        if base.bias is not None and not self._is_feedforward():
            updated["bias"] = (base.bias * factors.flatten()).to(base.bias.dtype)
        return updated

    def _for_weight(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the factors so that they multiply the base weight, as it is stored."""
        base: Any = self.base()
        if not self._is_convolution():
            return factors.T if self._plan().fan_in_fan_out else factors
        if not self._is_feedforward():
            return factors.transpose(0, 1)
        # The weight of a grouped convolution holds, for each channel written, the channels of its group alone.
        by_group = factors.view(base.groups, 1, -1, *factors.shape[2:])
        repeated = by_group.expand(-1, base.out_channels // base.groups, *by_group.shape[2:])
        return repeated.reshape(base.out_channels, -1, *factors.shape[2:])

    def _factors(self, adapters: Iterable[str]) -> torch.Tensor:
        first, *more = (self.ia3_l[adapter] for adapter in adapters)
        product: torch.Tensor = first
        for factors in more:
            product = product * factors
        return product

    def _is_feedforward(self) -> bool:
        return self._plan().is_feedforward

    def _is_convolution(self) -> bool:
        return self._plan().kind.startswith("conv")

    def _weights(self) -> tuple[str, ...]:
        return ("weight", "bias")
