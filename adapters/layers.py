"""LoRA layers: each holds its base layer as a child and adds ``scaling * B(A(x))`` to what it returns.

The names are PEFT's (``base_layer``, ``lora_A``, ``lora_B``, ``lora_embedding_A``, ``lora_dropout``, ``scaling``), so
that state dicts agree. Source of the method: arXiv:2106.09685.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..vocabulary import Kind
from .factors import (
    Initialisation,
    adapter_dtype,
    conv_factors,
    initialise,
    initialise_embedding,
    keyed,
    linear_factors,
)
from .foreign import embedding_scale
from .plan import PlannedAdapter
from .wrapper import Wrapper


class LoraLayer(Wrapper, ABC):
    """What all LoRA layers share: the base layer, the switch, merging and its inverse.

    Attributes:
        base_layer: The layer that was there, unchanged.
        active_adapter: Key of the adapter in every dictionary below.
        scaling: Factor of the update, per adapter.
        merged_adapters: The adapters whose update is in the base weight now.
        disable_adapters: Whether only the base layer answers.
    """

    inner_name = "base_layer"
    base_layer: nn.Module
    adapter_parameters: tuple[str, str]

    active_adapter: str
    r: dict[str, int]
    lora_alpha: dict[str, float]
    scaling: dict[str, float]
    fan_in_fan_out: bool
    shares_weight: bool
    disable_adapters: bool
    merged_adapters: list[str]
    _tied: list[nn.Parameter]

    def __init__(self, base_layer: nn.Module, planned: PlannedAdapter, adapter: str) -> None:
        super().__init__()
        # nn.Module's own assignment sorts every value into parameters, modules and the rest: half of an injection.
        self.__dict__.update(
            active_adapter=adapter,
            r={adapter: planned.r},
            lora_alpha={adapter: planned.alpha},
            scaling={adapter: planned.scaling},
            fan_in_fan_out=planned.fan_in_fan_out,
            shares_weight=planned.shares_weight,
            disable_adapters=False,
            merged_adapters=[],
            _tied=[],
        )
        self._modules["base_layer"] = base_layer
        self._modules["lora_dropout"] = keyed(adapter, _dropout(planned.dropout))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the base layer returns, plus the update, in the dtype of the base layer's result.

        A linear of a class of its own may return more beside it, as a tuple: that is passed on.
        """
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged_adapters:
            return result
        if isinstance(result, tuple):
            return (result[0] + self.update(x)).to(result[0].dtype), *result[1:]
        return (result + self.update(x)).to(result.dtype)

    @abstractmethod
    def update(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``scaling * B(A(dropout(x)))`` in the dtype of the factors."""

    @abstractmethod
    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the active adapter's ``A`` and ``B``."""

    @abstractmethod
    def get_delta_weight(self, adapter: str | None = None) -> torch.Tensor:
        """Return ``scaling * B @ A`` in the shape of the base weight, in the dtype of the factors."""

    def reset_lora_parameters(self, init_lora_weights: Initialisation) -> None:
        """Fill both factors anew; also for a model that was built on meta and then given storage."""
        initialise(*self.factors(), init_lora_weights)

    def adapter_state(self) -> dict[str, nn.Parameter]:
        """Return the factors under the names they have in PEFT's files."""
        return dict(zip(self.adapter_parameters, self.factors(), strict=True))

    @property
    def merged(self) -> bool:
        """Whether the update is in the base weight now."""
        return bool(self.merged_adapters)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base weight. Merging what is merged changes nothing."""
        if self.merged:
            return
        weight, delta = self._base_weight(), self.get_delta_weight()
        if self.shares_weight:  # the other layer must keep the weight it has
            self._tied.append(weight)
            self.base_layer.weight = nn.Parameter((weight + delta).to(weight.dtype), weight.requires_grad)
        else:
            weight.data.add_(delta)
        self.merged_adapters.append(self.active_adapter)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the base weight again, exact up to rounding in the weight's dtype."""
        if not self.merged:
            return
        self.merged_adapters.clear()
        if self._tied:
            self.base_layer.weight = self._tied.pop()
        else:
            self._base_weight().data.sub_(self.get_delta_weight())

    def _base_weight(self) -> nn.Parameter:
        weight: nn.Parameter = self.base_layer.weight  # type: ignore[assignment]  # planned layers have one
        return weight


class _TwoModules(LoraLayer):
    """LoRA whose factors are modules, one called after the other."""

    adapter_parameters = ("lora_A.weight", "lora_B.weight")

    def _hold(self, first: nn.Module, second: nn.Module) -> None:
        self._modules["lora_A"] = keyed(self.active_adapter, first)
        self._modules["lora_B"] = keyed(self.active_adapter, second)

    def update(self, x: torch.Tensor) -> torch.Tensor:
        """Return the update for ``x``, shaped like the base layer's result."""
        adapter = self.active_adapter
        first, second = self.lora_A[adapter], self.lora_B[adapter]
        x = x.to(first.weight.dtype)
        result: torch.Tensor = second(first(self.lora_dropout[adapter](x))) * self.scaling[adapter]
        return result

    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the two weights."""
        return self.lora_A[self.active_adapter].weight, self.lora_B[self.active_adapter].weight


class LoraLinear(_TwoModules):
    """LoRA on a linear layer, stored as (out, in), or as (in, out) in transformers' ``Conv1D``."""

    def __init__(self, base_layer: nn.Module, planned: PlannedAdapter, adapter: str) -> None:
        super().__init__(base_layer, planned, adapter)
        weight = self._base_weight()
        written, read = weight.shape[::-1] if planned.fan_in_fan_out else weight.shape
        self._hold(*linear_factors(read, planned.r, written, weight))

    def get_delta_weight(self, adapter: str | None = None) -> torch.Tensor:
        """Return ``scaling * B @ A``, transposed where the base stores (in, out)."""
        first, second = self.factors()
        delta = second @ first * self.scaling[adapter or self.active_adapter]
        return delta.T if self.fan_in_fan_out else delta


class LoraConv(_TwoModules):
    """LoRA on a convolution: ``A`` has its kernel, ``B`` a kernel of one and its groups.

    With groups, ``A`` still reads every channel, as in PEFT; such an update has no grouped weight, so it cannot be
    merged.
    """

    def __init__(self, base_layer: nn.Module, planned: PlannedAdapter, adapter: str) -> None:
        super().__init__(base_layer, planned, adapter)
        self._hold(*conv_factors(base_layer, planned.kind, planned.r))

    def get_delta_weight(self, adapter: str | None = None) -> torch.Tensor:
        """Return the update as a kernel, (out, in, *kernel)."""
        first, second = self.factors()
        delta = second.flatten(1) @ first.flatten(1) * self.scaling[adapter or self.active_adapter]
        return delta.view(second.shape[0], *first.shape[1:])


class LoraEmbedding(LoraLayer):
    """LoRA on an embedding: ``lora_embedding_A`` (r, ids) is looked up, ``lora_embedding_B`` (features, r) follows."""

    adapter_parameters = ("lora_embedding_A", "lora_embedding_B")

    def __init__(self, base_layer: nn.Module, planned: PlannedAdapter, adapter: str) -> None:
        super().__init__(base_layer, planned, adapter)
        ids, features = (weight := self._base_weight()).shape
        where: dict[str, Any] = {"device": weight.device, "dtype": adapter_dtype(weight.dtype)}
        first = nn.Parameter(torch.empty((planned.r, ids), **where))
        second = nn.Parameter(torch.empty((features, planned.r), **where))
        self.lora_embedding_A = nn.ParameterDict({adapter: first})
        self.lora_embedding_B = nn.ParameterDict({adapter: second})

    def update(self, x: torch.Tensor) -> torch.Tensor:
        """Return the update for ids ``x``, (*ids, features), scaled as the base layer scales its own result."""
        base: Any = self.base_layer
        first, second = self.factors()
        looked_up = functional.embedding(
            x,
            first.T,
            padding_idx=base.padding_idx,
            scale_grad_by_freq=base.scale_grad_by_freq,
            sparse=base.sparse,
        )
        scale = embedding_scale(base)
        result = looked_up @ second.T * self.scaling[self.active_adapter]
        return result if scale is None else result * torch.as_tensor(scale).to(result)

    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the two parameters."""
        return self.lora_embedding_A[self.active_adapter], self.lora_embedding_B[self.active_adapter]

    def get_delta_weight(self, adapter: str | None = None) -> torch.Tensor:
        """Return ``scaling * (B @ A).T``, (ids, features)."""
        first, second = self.factors()
        return (second @ first).T * self.scaling[adapter or self.active_adapter]

    def reset_lora_parameters(self, init_lora_weights: Initialisation) -> None:
        """Fill both factors anew: here it is ``A`` that starts at zero."""
        initialise_embedding(*self.factors(), init_lora_weights)


LAYERS: dict[Kind, type[LoraLayer]] = {
    "linear": LoraLinear,
    "transposed_linear": LoraLinear,
    "conv1d": LoraConv,
    "conv2d": LoraConv,
    "conv3d": LoraConv,
    "embedding": LoraEmbedding,
}


def _dropout(probability: float) -> nn.Module:
    return nn.Dropout(probability) if probability else nn.Identity()
