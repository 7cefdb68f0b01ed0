"""IA3 layers: one learned factor per feature, on what a layer returns, or on what a feed-forward layer reads.

The names are PEFT's (``ia3_l``). Source of the method: arXiv:2205.05638.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ...errors import InvalidConfig
from ..injection import foreign
from ..injection.plan import PlannedAdapter
from .base_layer import AdapterLayer, Child
from .factors import adapter_dtype, is_plain_conv


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
        before, after = self._factors(self.answering())
        if before is not None:
            x = (x * self._for_features(before)).to(x.dtype)
        result = self.base_layer(x, *args, **kwargs)
        if after is None:
            return result
        first = result[0] if isinstance(result, tuple) else result
        scaled = (first * self._for_features(after)).to(first.dtype)
        return (scaled, *result[1:]) if isinstance(result, tuple) else scaled

    def check_mergeable(self, path: str) -> None:
        """Refuse a convolution with a forward of its own: if it standardises its weight, a factor in it is lost."""
        super().check_mergeable(path)
        base = self.base()
        if self._is_convolution() and not is_plain_conv(base):
            message = f"{path!r} ({type(base).__name__}) has a forward of its own: IA3 on it cannot be merged."
            raise InvalidConfig(f"{message} Keep the adapter apart.", path=path)

    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the rescaled weight, and the rescaled bias where the result is what is rescaled."""
        base: Any = self.base()
        before, after = self._factors(adapters)
        weight: torch.Tensor = base.weight
        updated: dict[str, torch.Tensor] = {}
        if before is not None:
            weight = weight * self._as_read(before)
        if after is not None:
            weight = weight * self._as_written(after)
            if base.bias is not None:
                updated["bias"] = (base.bias * after.flatten()).to(base.bias.dtype)
        return {"weight": weight.to(base.weight.dtype), **updated}

    def _for_features(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the factors so that they multiply what is read or written."""
        return factors if self._is_convolution() else factors.flatten()

    def _as_written(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the factors of what is written so that they multiply the base weight, as it is stored."""
        if self._is_convolution():
            return factors.transpose(0, 1)
        return factors.T if self._plan().fan_in_fan_out else factors

    def _as_read(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the factors of what is read so that they multiply the base weight, as it is stored."""
        base: Any = self.base()
        if not self._is_convolution():
            return factors.T if self._plan().fan_in_fan_out else factors
        # The weight of a grouped convolution holds, for each channel written, the channels of its group alone.
        by_group = factors.view(base.groups, 1, -1, *factors.shape[2:])
        repeated = by_group.expand(-1, base.out_channels // base.groups, *by_group.shape[2:])
        return repeated.reshape(base.out_channels, -1, *factors.shape[2:])

    def _factors(self, adapters: Iterable[str]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the products of the factors of what is read, and of what is written; ``None`` where there are none."""
        products: dict[bool, torch.Tensor] = {}
        for adapter in adapters:
            is_read = self.planned[adapter].is_feedforward
            factors = self.ia3_l[adapter]
            products[is_read] = products[is_read] * factors if is_read in products else factors
        return products.get(True), products.get(False)

    def _is_convolution(self) -> bool:
        return self._plan().kind.startswith("conv")

    def _weights(self) -> tuple[str, ...]:
        return ("weight", "bias")
