"""LoRA on bare parameters: fused experts, and the projections of ``nn.MultiheadAttention``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .base_layer import run_with
from .lora import LoraLayer
from .low_rank import linear_factors
from .planned import PlannedAdapter
from .wrappers import Child, Wrapper

STACKED = 3
"""Number of dimensions of a stack of matrices."""


class LoraParameter(LoraLayer):
    """LoRA on a bare parameter, (out, in) or a stack of them, such as fused experts (PEFT's ``ParamWrapper``).

    ``A`` is (experts * r, in), expert by expert; ``B`` is (out, r * experts), the experts of each rank together. As in
    PEFT, the last dimension of a stack is ``in``, unless its module has ``is_transposed``. The base layer is run with
    the updated parameter, so that every use of it sees the update.
    """

    peft_name = "tuners.lora.layer.ParamWrapper"

    takes_samples = False

    @property
    def parameter_name(self) -> str:
        """Name of the adapted parameter."""
        return self._weight_name

    def extra_repr(self) -> str:
        """Return the name of the parameter: several of one module may be adapted."""
        return f"parameter_name={self.parameter_name!r},"

    @classmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create both factors as linear layers over all experts."""
        parameter: Any = getattr(base, planned.parameter)
        *stack, written, read = parameter.shape
        if stack and planned.fan_in_fan_out:
            written, read = read, written
        experts = stack[0] if stack else 1
        return linear_factors(read, written, planned.r * experts, parameter)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the base layer with the updated parameter."""
        adapters = self.effective_adapters()
        if not adapters:
            return self.base_layer(*args, **kwargs)
        return run_with(self.base_layer, _renamed(self.updated(adapters), self.base_layer), args, kwargs)

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Raise: the update is in the parameter."""
        raise NotImplementedError

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return ``scaling * B @ A`` for every expert, in the shape of the parameter."""
        first: torch.Tensor
        second: torch.Tensor
        first, second = self.factors(adapter)
        planned, parameter = self.planned[adapter], self._weight()
        if parameter.ndim != STACKED:
            return second @ first * self.scaling[adapter]
        experts = parameter.shape[0]
        first = first.view(experts, planned.r, -1)
        second = second.view(-1, planned.r, experts).permute(2, 0, 1)
        delta = second @ first * self.scaling[adapter]
        return delta.transpose(1, 2) if planned.fan_in_fan_out else delta


class LoraMultihead(LoraParameter):
    """LoRA on an input projection of ``nn.MultiheadAttention``, which has one fused projection or three.

    The output projection ``out_proj`` is a layer and gets an adapter layer, but the attention reads its weight and
    never calls it, unless a subclass does. So the innermost of these layers passes the updated weight of ``out_proj``
    in, and that layer adds nothing meanwhile.
    """

    peft_name = "tuners.lora.layer.MultiheadAttention"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the attention with the updated weights of this projection and of the output projection."""
        adapters = self.effective_adapters()
        updated = self.updated(adapters) if adapters else {}
        layer = None if isinstance(self.base_layer, LoraMultihead) else self._find_output_layer()
        if layer is None:
            return run_with(self.base_layer, _renamed(updated, self.base_layer), args, kwargs)
        of_output = _renamed(layer.updated(layer.effective_adapters()), self.base().out_proj)  # type: ignore[arg-type]
        updated |= {f"out_proj.{name}": value for name, value in of_output.items()}
        layer.is_passed_in = True
        try:
            return run_with(self.base_layer, _renamed(updated, self.base_layer), args, kwargs)
        finally:
            layer.is_passed_in = False

    def _restore_weights(self) -> None:
        """Do nothing: weights stay parameters of the attention here, and PEFT's users call it where they are lost."""

    def _find_output_layer(self) -> LoraLayer | None:
        """Return the adapter layer around ``out_proj``, if an adapter is active there."""
        layer: Any = self.base().out_proj
        while isinstance(layer, Wrapper):
            if isinstance(layer, LoraLayer) and layer.effective_adapters():
                return layer
            layer = layer.wrapped()
        return None


def _renamed(updated: Mapping[str, torch.Tensor], outer: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters of the module inside of ``outer``'s wrappers by their names in ``outer``."""
    prefix, module = "", outer
    while isinstance(module, Wrapper):
        prefix, module = f"{prefix}{module.inner_name}.", module.wrapped()
    return {prefix + name: value for name, value in updated.items()}
