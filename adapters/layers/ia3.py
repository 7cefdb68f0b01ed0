"""IA3 layers: one learned factor per feature of a layer's output, or of a feed-forward layer's input.

The names are PEFT's (``ia3_l``). Source of the method: arXiv:2205.05638.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ...discovery import is_plain_conv
from ...errors import InvalidConfig
from .base_layer import adapter_dtype, features_of, first_tensor
from .planned import PlannedAdapter
from .wrappers import AdapterLayer, Child


class IA3Layer(AdapterLayer):
    """IA3 on a linear layer or a convolution."""

    containers = ("ia3_l",)

    def peft_class(self) -> str:
        """Return the class for the kind of layer; PEFT has none for one dimension."""
        names = {4: "Conv2d", 5: "Conv3d"}
        return f"tuners.ia3.layer.{names.get(first_tensor(self.base()).ndim, 'Linear')}"

    @property
    def is_feedforward(self) -> bool:
        """Whether the input is scaled, not the output."""
        return self._plan.is_feedforward

    @classmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create the factors: (out, 1) or, feed-forward, (1, in); for a convolution (1, features, 1, ...)."""
        like = first_tensor(base)
        read, written = features_of(base, planned.kind)
        features = read if planned.is_feedforward else written
        if planned.kind.startswith("conv"):
            shape: tuple[int, ...] = (1, features, *(1,) * (like.ndim - 2))
        else:
            shape = (1, features) if planned.is_feedforward else (features, 1)
        return {"ia3_l": nn.Parameter(torch.empty(shape, device=like.device, dtype=adapter_dtype(like.dtype)))}

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill the factors with ones, so that nothing changes; normally distributed if ``how`` is ``False``."""
        factors: Any = parts["ia3_l"]
        if how:
            nn.init.ones_(factors)
        else:
            nn.init.normal_(factors)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the base layer with its input or its output rescaled."""
        of_input, of_output = self._factors(self.effective_adapters())
        if of_input is not None:
            x = (x * self._per_feature(of_input)).to(x.dtype)
        result = self.base_layer(x, *args, **kwargs)
        if of_output is None:
            return result
        first = result[0] if isinstance(result, tuple) else result
        scaled = (first * self._per_feature(of_output)).to(first.dtype)
        return (scaled, *result[1:]) if isinstance(result, tuple) else scaled

    def check_mergeable(self, path: str, adapters: Iterable[str]) -> None:
        """Reject a convolution with its own forward too: one that standardises its weight loses a factor in it."""
        super().check_mergeable(path, adapters)
        base = self.base()
        if self._is_convolution() and not is_plain_conv(base):
            message = f"{path!r} ({type(base).__name__}) has a forward of its own: IA3 on it cannot be merged."
            raise InvalidConfig(f"{message} Keep the adapter apart.", path=path)

    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the rescaled weight, and the rescaled bias where the output is rescaled."""
        base: Any = self.base()
        of_input, of_output = self._factors(adapters)
        weight: torch.Tensor = base.weight
        updated: dict[str, torch.Tensor] = {}
        if of_input is not None:
            weight = weight * self._per_input_weight(of_input)
        if of_output is not None:
            is_transposed = self._is_convolution() or self._plan.fan_in_fan_out
            weight = weight * (of_output.transpose(0, 1) if is_transposed else of_output)
            if base.bias is not None:
                updated["bias"] = (base.bias * of_output.flatten()).to(base.bias.dtype)
        return {"weight": weight.to(base.weight.dtype), **updated}

    def _per_feature(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the factors in a shape that broadcasts over the layer's input or output."""
        return factors if self._is_convolution() else factors.flatten()

    def _per_input_weight(self, factors: torch.Tensor) -> torch.Tensor:
        """Return the factors of the input in a shape that broadcasts over the base weight as stored."""
        base: Any = self.base()
        if not self._is_convolution():
            return factors.T if self._plan.fan_in_fan_out else factors
        # The weight of a grouped convolution holds, for each output channel, the input channels of its group alone.
        by_group = factors.view(base.groups, 1, -1, *factors.shape[2:])
        repeated = by_group.expand(-1, base.out_channels // base.groups, *by_group.shape[2:])
        return repeated.reshape(base.out_channels, -1, *factors.shape[2:])

    def _factors(self, adapters: Iterable[str]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the products of these adapters' factors of the input and of the output, ``None`` without any."""
        products: dict[bool, torch.Tensor] = {}
        for adapter in adapters:
            is_feedforward = self.planned[adapter].is_feedforward
            factors = self.ia3_l[adapter]
            products[is_feedforward] = products[is_feedforward] * factors if is_feedforward in products else factors
        return products.get(True), products.get(False)

    def _is_convolution(self) -> bool:
        return self._plan.kind.startswith("conv")
