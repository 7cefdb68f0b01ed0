"""LoRA layers: each adds ``scaling * B(A(x))`` to what its base layer returns, or ``scaling * B @ A`` to its weight.

The names are PEFT's (``lora_A``, ``lora_B``, ``lora_embedding_A``, ``lora_dropout``, ``scaling``), so that state dicts
and files agree. Source of the method: arXiv:2106.09685.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from ...errors import InvalidConfig
from ..injection import foreign
from ..injection.plan import PlannedAdapter
from .base_layer import AdapterLayer, Child, state_of
from .factors import adapter_dtype, conv_factors, initialise, initialise_embedding, is_plain_conv, linear_factors
from .low_rank import can_fuse, low_rank_linear
from .wrapper import Wrapper

STACKED = 3
"""Dimensions of a stack of matrices."""


class LoraLayer(AdapterLayer):
    """What all LoRA layers share."""

    containers = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_dropout")
    takes_samples = True

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill both factors."""
        first, second = state_of(parts).values()
        initialise(first, second, how)

    def hold(self, adapter: str, planned: PlannedAdapter, parts: Mapping[str, Child]) -> None:
        """Take an adapter in; its dropout, if it has any, is a module as well."""
        super().hold(adapter, planned, parts)
        if planned.dropout:
            super().hold(adapter, planned, {"lora_dropout": nn.Dropout(planned.dropout).train(self.training)})

    @property
    def scaling(self) -> dict[str, float]:
        """Factor of each adapter's update."""
        return {adapter: planned.scaling for adapter, planned in self.planned.items()}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the base layer returns, plus the updates, in the dtype of the base layer's result.

        A linear of a class of its own may return more beside it, as a tuple: that is passed on.
        """
        result = self.base_layer(x, *args, **kwargs)
        adapters = self.answering()
        if not adapters and self.steering.samples is None:
            return result
        if isinstance(result, tuple):
            return (self._plus(result[0], x, adapters), *result[1:])
        return self._plus(result, x, adapters)

    def _plus(self, result: torch.Tensor, x: torch.Tensor, adapters: list[str]) -> torch.Tensor:
        if self.steering.samples is not None:
            return self._plus_by_sample(result, x, self.steering.samples)
        for adapter in adapters:
            result = (result + self.update(x, adapter)).to(result.dtype)
        return result

    def _plus_by_sample(self, result: torch.Tensor, x: torch.Tensor, samples: Sequence[str]) -> torch.Tensor:
        """Add to each row the update of its own sample's adapter; a batch may hold every sample several times.

        Raises:
            InvalidConfig: If the rows cannot be told apart.
        """
        if x.shape[0] % len(samples):
            message = f"adapter_names has {len(samples)} names for {x.shape[0]} rows: give one for each sample."
            raise InvalidConfig(message, rows=x.shape[0], names=len(samples))
        times = x.shape[0] // len(samples)
        for adapter in {*samples} & self.planned.keys():
            first = [sample * times for sample, name in enumerate(samples) if name == adapter]
            rows = torch.tensor([row + each for row in first for each in range(times)], device=x.device)
            result = result.index_add(0, rows, self.update(x[rows], adapter).to(result.dtype))
        return result

    @abstractmethod
    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return ``scaling * B(A(dropout(x)))`` in the dtype of the factors, shaped like the base layer's result."""

    def factors(self, adapter: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Return an adapter's ``A`` and ``B``."""
        return self.lora_A[adapter].weight, self.lora_B[adapter].weight

    def experts(self) -> int:
        """Return how many matrices the base weight is a stack of."""
        return 1

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return ``scaling * B @ A`` in the shape of the base weight, in the dtype of the factors."""
        first, second = self.factors(adapter)
        delta = (second.flatten(1) @ first.flatten(1)) * self.planned[adapter].scaling
        return self._shaped(delta)

    def _shaped(self, delta: torch.Tensor) -> torch.Tensor:
        """Return a product (out, in) in the shape in which the base layer stores its weight."""
        return delta.view(self._weight().shape)

    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the base weight plus ``scaling * B @ A`` of each adapter."""
        [name] = self._weights()
        weight: torch.Tensor = self._weight()
        total = weight
        for adapter in adapters:
            delta = self.get_delta_weight(adapter)
            total = total.to(delta.dtype) + delta
        return {name: total.to(weight.dtype)}

    def _weight(self) -> nn.Parameter:
        [name] = self._weights()
        weight: nn.Parameter = getattr(self.base(), name)
        return weight


class LoraLinear(LoraLayer):
    """LoRA on a linear layer, stored as (out, in), or as (in, out) in transformers' ``Conv1D``; quantised ones too."""

    @classmethod
    def parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Return ``A`` (r, in) and ``B`` (out, r)."""
        first, second = linear_factors(*foreign.features_of(base, planned.kind), planned.r, foreign.first_tensor(base))
        return {"lora_A": first, "lora_B": second}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the base layer returns, plus the updates; in one step where that is the same."""
        adapters = self.answering()
        if len(adapters) != 1 or args or kwargs or self.steering.samples is not None:
            return super().forward(x, *args, **kwargs)
        [adapter], modules = adapters, self._modules
        base, planned = modules["base_layer"], self.planned[adapter]
        first, second = modules["lora_A"]._modules[adapter], modules["lora_B"]._modules[adapter]  # type: ignore[union-attr]  # noqa: SLF001
        if (self.training and planned.dropout) or not can_fuse(base, first, second):  # type: ignore[arg-type]
            return super().forward(x)
        return low_rank_linear(x, base, first, second, planned.scaling)  # type: ignore[arg-type]

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the update for ``x`` (*, in)."""
        return _through(self, x, adapter)

    def _shaped(self, delta: torch.Tensor) -> torch.Tensor:
        return delta.T if self._plan().fan_in_fan_out else delta


class LoraConv(LoraLayer):
    """LoRA on a convolution: ``A`` has its kernel, ``B`` a kernel of one and its groups.

    With groups, ``A`` still reads every channel, as in PEFT; such an update has no grouped weight, so it cannot be
    merged. A convolution with a forward of its own (padding, standardised weights) is run with the updated weight.
    """

    @classmethod
    def parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Return the two convolutions."""
        first, second = conv_factors(base, planned.kind, planned.r)
        return {"lora_A": first, "lora_B": second}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the base layer returns, plus the updates."""
        if is_plain_conv(self.base_layer) or self.groups > 1 or self.steering.samples is not None:
            return super().forward(x, *args, **kwargs)
        return functional_call(self.base_layer, self.updated(self.answering()), (x, *args), kwargs)

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the update for ``x`` (batch, in, *size)."""
        return _through(self, x, adapter)

    @property
    def takes_samples(self) -> bool:  # type: ignore[override]
        """Not where the update is in the weight."""
        return is_plain_conv(self.base())

    def check_mergeable(self, path: str) -> None:
        """Refuse groups: the product of ``A`` and ``B`` mixes them."""
        super().check_mergeable(path)
        if self.groups > 1:
            message = f"{path!r} has groups={self.groups}: LoRA on a grouped convolution cannot be merged."
            raise InvalidConfig(f"{message} Keep the adapter apart.", path=path, groups=self.groups)


class LoraEmbedding(LoraLayer):
    """LoRA on an embedding: ``lora_embedding_A`` (r, ids) is looked up, ``lora_embedding_B`` (features, r) follows."""

    @classmethod
    def parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Return both factors, as bare parameters."""
        weight: Any = base.weight
        ids, features = weight.shape
        where: dict[str, Any] = {"device": weight.device, "dtype": adapter_dtype(weight.dtype)}
        first = nn.Parameter(torch.empty((planned.r, ids), **where))
        second = nn.Parameter(torch.empty((features, planned.r), **where))
        return {"lora_embedding_A": first, "lora_embedding_B": second}

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill both factors: here it is ``A`` that starts at zero."""
        first, second = state_of(parts).values()
        initialise_embedding(first, second, how)

    def factors(self, adapter: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Return ``A`` (r, ids) and ``B`` (features, r)."""
        return self.lora_embedding_A[adapter], self.lora_embedding_B[adapter]

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the update for ids ``x``, (*ids, features), scaled as the base layer scales its own result."""
        base: Any = self.base()
        first, second = self.factors(adapter)
        looked_up = functional.embedding(
            x, first.T, base.padding_idx, base.max_norm, base.norm_type, base.scale_grad_by_freq
        )
        result = looked_up @ second.T * self.planned[adapter].scaling
        scale = foreign.embedding_scale(base)
        return result if scale is None else result * scale

    def _shaped(self, delta: torch.Tensor) -> torch.Tensor:
        return delta.T


class LoraParameter(LoraLayer):
    """LoRA on a bare parameter, (out, in) or a stack of them, such as fused experts (PEFT's ``ParamWrapper``).

    ``A`` is (experts * r, in), expert by expert; ``B`` is (out, r * experts), the experts of each rank together. Which
    of a stack's dimensions PEFT takes for ``in`` is the last, unless its module says ``is_transposed``. The base layer
    is run with the updated parameter in its place, so that whatever it does with it sees the update.
    """

    takes_samples = False

    @classmethod
    def parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Return both factors, as linear maps over all experts."""
        parameter: Any = getattr(base, planned.parameter)
        *stack, written, read = parameter.shape
        if stack and planned.fan_in_fan_out:
            written, read = read, written
        experts = stack[0] if stack else 1
        first, second = linear_factors(read, written, planned.r * experts, parameter)
        return {"lora_A": first, "lora_B": second}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the base layer returns with the updated parameter."""
        adapters = self.answering()
        if not adapters:
            return self.base_layer(*args, **kwargs)
        return functional_call(self.base_layer, self._located(self.updated(adapters)), args, kwargs)

    def _located(self, updated: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the parameters by their names as seen from ``base_layer``, which may be another adapter's layer."""
        prefix = _way_in(self.base_layer)
        return {prefix + name: value for name, value in updated.items()}

    def experts(self) -> int:
        """Return how many matrices the parameter is a stack of."""
        parameter = self._weight()
        return parameter.shape[0] if parameter.ndim == STACKED else 1

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """There is none: the update is in the parameter."""
        raise NotImplementedError

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return ``scaling * B @ A`` for every expert, in the shape of the parameter."""
        first: torch.Tensor
        second: torch.Tensor
        first, second = self.factors(adapter)
        planned, parameter = self.planned[adapter], self._weight()
        if parameter.ndim != STACKED:
            return second @ first * planned.scaling
        experts = parameter.shape[0]
        first = first.view(experts, planned.r, -1)
        second = second.view(-1, planned.r, experts).permute(2, 0, 1)
        delta = second @ first * planned.scaling
        return delta.transpose(1, 2) if planned.fan_in_fan_out else delta

    def _weights(self) -> tuple[str, ...]:
        return (self._plan().parameter,)


class LoraMultihead(LoraParameter):
    """LoRA on an input projection of ``nn.MultiheadAttention``, which may be one for all or three.

    Its output projection is a layer of its own, ``out_proj``, and gets an adapter of its own; but it is the attention
    that reads its weight, and so the innermost of these layers that has to hand the updated one in.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the attention returns with both updates in it."""
        adapters = self.answering()
        updated = self.updated(adapters) if adapters else {}
        if not isinstance(self.base_layer, LoraMultihead):
            updated |= self._of_output()
        return functional_call(self.base_layer, self._located(updated), args, kwargs)

    def _of_output(self) -> dict[str, torch.Tensor]:
        """Return the updated parameters of the output projection, by their names as seen from the attention."""
        output: Any = self.base().out_proj
        prefix = f"out_proj.{_way_in(output)}"
        while isinstance(output, Wrapper):
            if isinstance(output, AdapterLayer) and (adapters := output.answering()):
                return {prefix + name: value for name, value in output.updated(adapters).items()}
            output = output._modules[output.inner_name]  # noqa: SLF001 - not what answers now
        return {}


def _way_in(module: nn.Module | None) -> str:
    """Return what the names of a module's parameters begin with as seen from what stands in for it."""
    prefix = ""
    while isinstance(module, Wrapper):
        prefix, module = f"{prefix}{module.inner_name}.", module._modules[module.inner_name]  # noqa: SLF001
    return prefix


def _through(layer: LoraLayer, x: torch.Tensor, adapter: str) -> torch.Tensor:
    """Return ``scaling * B(A(dropout(x)))`` by the two modules of an adapter."""
    first, second = layer.lora_A[adapter], layer.lora_B[adapter]
    x = x.to(first.weight.dtype)
    if (dropouts := layer._modules.get("lora_dropout")) is not None and adapter in dropouts:  # type: ignore[operator]  # noqa: SLF001
        x = dropouts[adapter](x)  # type: ignore[index]
    result: torch.Tensor = second(first(x)) * layer.planned[adapter].scaling
    return result
