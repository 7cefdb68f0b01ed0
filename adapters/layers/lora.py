"""LoRA layers: add ``scaling * B(A(x))`` to the base layer's output, or ``scaling * B @ A`` to its weight.

With DoRA, the sum is then rescaled (``dora.py``).

The names are PEFT's (``lora_A``, ``lora_B``, ``lora_embedding_A``, ``lora_dropout``, ``scaling``), so that state dicts
and files agree. Source of the method: arXiv:2106.09685.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...discovery import is_plain_conv
from ...errors import InvalidConfig
from .base_layer import adapter_dtype, count_rows, features_of, first_tensor, run_with
from .dora import create_magnitude, dense_weight, fill_magnitude
from .low_rank import CONV_FACTORS, can_fuse, linear_factors, low_rank_linear
from .peft_variants import VariantLayer, add_variant_parts
from .planned import PlannedAdapter
from .wrappers import MAGNITUDE, Child, state_of

CONV_FIELDS = ("kernel_size", "stride", "padding", "dilation", "padding_mode", "_reversed_padding_repeated_twice")
"""The attributes by which a convolution walks over its input."""


class BiasNotMergeable(InvalidConfig, RuntimeError):
    """A bias of ``B`` that the base layer has no bias for; PEFT raises a ``RuntimeError``."""


class LoraLayer(VariantLayer):
    """The base class of LoRA layers."""

    containers = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_dropout", MAGNITUDE)
    other_param_names = ("scaling",)
    takes_samples = True
    scaling: dict[str, float]
    """The factor of each adapter's update; a change takes effect at once, but in weights that are merged already."""
    is_passed_in = False
    """Whether the base weight holds the update already, while the attention around the layer runs."""

    def _get_name(self) -> str:
        """Return the name in PEFT's ``repr``, and in its status of layers."""
        return f"lora.{self.peft_class().rpartition('.')[2]}"

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill both factors with PEFT's distributions (``reset_lora_parameters``, 0.21.2).

        ``True``: Kaiming uniform with ``a=sqrt(5)`` and zeros, the reference of arXiv:2106.09685. ``"gaussian"``:
        normal with ``std=1/r`` and zeros. ``False``: both uniform, so that the first update is not zero. A bias is
        zero, or uniform as that of any layer. For other names see ``injection.beginnings``.
        """
        state = state_of(parts)
        first, second = state["lora_A.weight"], state["lora_B.weight"]
        if first.is_meta or how not in (True, False, "gaussian", "eva"):
            return
        if not hasattr(parts["lora_A"], "nblocks"):  # of BD-LoRA, whose blocks PEFT's class fills
            if how == "gaussian":
                nn.init.normal_(first, std=1 / first.shape[0])
            else:
                nn.init.kaiming_uniform_(first, a=math.sqrt(5))
        if how:  # fresh zero pages come from the system unwritten, which costs a sixth of writing zeros
            second.data = torch.zeros(second.shape, device=second.device, dtype=second.dtype)
        else:
            nn.init.kaiming_uniform_(second, a=math.sqrt(5))
        if (bias := state.get("lora_B.bias")) is not None:
            bound = 0.0 if how else 1 / math.sqrt(second[0].numel())
            nn.init.uniform_(bias, -bound, bound)

    def insert(self, adapter: str, planned: PlannedAdapter, parts: Mapping[str, Child]) -> None:
        """Add an adapter to this layer, and its dropout, if it has any, as a module."""
        self.__dict__.setdefault("scaling", {})[adapter] = planned.scaling
        if planned.variant is not None:
            self.insert_variant(adapter, planned, parts)
            return
        super().insert(adapter, planned, parts)
        if planned.dropout:
            super().insert(adapter, planned, {"lora_dropout": nn.Dropout(planned.dropout)})

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is here."""
        super().remove(adapter)
        self.scaling.pop(adapter, None)

    @property
    def r(self) -> dict[str, int]:
        """The rank of each adapter on this layer."""
        return {name: planned.r for name, planned in self.planned.items()}

    @property
    def lora_alpha(self) -> dict[str, float]:
        """The numerator of each adapter's configured scaling."""
        return {name: planned.lora_alpha for name, planned in self.planned.items()}

    @property
    def use_rslora(self) -> dict[str, bool]:
        """Whether the denominator of each adapter's scaling is the root of its rank."""
        return {name: planned.use_rslora for name, planned in self.planned.items()}

    @property
    def lora_bias(self) -> dict[str, bool]:
        """Whether ``B`` of each adapter has a bias."""
        return {name: planned.lora_bias for name, planned in self.planned.items()}

    def set_scale(self, adapter: str, scale: float) -> None:
        """Multiply the configured factor of an adapter's update by ``scale``; without that adapter nothing happens."""
        if adapter in self.planned:
            self.scaling[adapter] = scale * self.planned[adapter].scaling

    def scale_layer(self, scale: float) -> None:
        """Multiply the factor of each active adapter by ``scale``."""
        for adapter in self.effective_adapters():
            self.scaling[adapter] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the factor of each active adapter by ``scale``; by default it is again the configured one."""
        for adapter in self.effective_adapters():
            self.scaling[adapter] = self.planned[adapter].scaling if scale is None else self.scaling[adapter] / scale

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the base layer and add the updates, in the dtype of its output.

        A linear layer of the user's own class may return a tuple, of which the first element is updated.
        """
        result = self.base_layer(x, *args, **kwargs)
        adapters, samples = self.effective_adapters(), self.steering.samples
        if self.is_passed_in or (not adapters and samples is None):
            return result
        output = result[0] if isinstance(result, tuple) else result
        if samples is not None:
            output = self._add_by_sample(output, x, samples)
        else:
            dtype = output.dtype
            for adapter in adapters:
                output = self._add(output, x, adapter)
            output = output.to(dtype)
        return (output, *result[1:]) if isinstance(result, tuple) else output

    def _add(self, output: torch.Tensor, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the output with the update of one adapter."""
        planned = self.planned[adapter]
        if planned.variant is not None:
            return self.run_variant(output, x, adapter)
        return self.decompose(output, x, adapter) if planned.use_dora else output + self.update(x, adapter)

    def _add_by_sample(self, output: torch.Tensor, x: torch.Tensor, samples: Sequence[str]) -> torch.Tensor:
        """Add to each row the update of its sample's adapter; a sample may have several consecutive rows.

        Raises:
            InvalidConfig: If the rows cannot be split evenly among the samples.
        """
        times = count_rows(x, samples)
        for adapter in {*samples} & self.planned.keys():
            first = [sample * times for sample, name in enumerate(samples) if name == adapter]
            rows = torch.tensor([row + each for row in first for each in range(times)], device=x.device)
            updated = self._add(output[rows], x[rows], adapter)
            output = output.index_copy(0, rows, updated.to(output.dtype))
        return output

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return ``scaling * B(A(dropout(x)))`` in the dtype of the factors and the shape of the output.

        Args:
            x: Input of the layer: (*, in) of a linear, (batch, in, *size) of a convolution.
            adapter: Name of the adapter.
        """
        first, second = self.lora_A[adapter], self.lora_B[adapter]
        x = x.to(first.weight.dtype) if self.cast_input_dtype_enabled else x
        if (dropouts := self._modules.get("lora_dropout")) is not None and adapter in dropouts:  # type: ignore[operator]
            x = dropouts[adapter](x)  # type: ignore[index]
        result: torch.Tensor = second(first(x)) * self.scaling[adapter]
        return result

    def check_mergeable(self, path: str, adapters: Iterable[str]) -> None:
        """Reject a bias of ``B`` too, where the base layer has none to add it to."""
        super().check_mergeable(path, adapters)
        with_bias = [name for name in adapters if name in self.planned and self.planned[name].lora_bias]
        if with_bias and self.base()._parameters.get("bias") is None:  # noqa: SLF001 - none registered is none
            message = "Impossible to merge LoRA with `lora_bias=True` because the base layer has no bias"
            raise BiasNotMergeable(f"{message}: {path!r}, for {with_bias[0]!r}. Keep the adapter apart.", path=path)

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return ``scaling * B @ A`` in the shape of the base weight, in the dtype of the factors; without DoRA."""
        first, second = self.factors(adapter)
        delta = (second.flatten(1) @ first.flatten(1)) * self.scaling[adapter]
        return self._shaped(delta)

    def _shaped(self, delta: torch.Tensor) -> torch.Tensor:
        """Return a product (out, in) in the layout of the base weight."""
        return delta.view(self._weight().shape)

    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the base weight plus ``scaling * B @ A`` of each adapter, and the bias plus that of each ``B``."""
        weight = self._weight()
        total: torch.Tensor = weight
        biases = []
        for adapter in adapters:
            if self.planned[adapter].variant is not None:
                total = self.lora_variant[adapter].merge_safe(self, adapter, total)
                continue
            delta = self.get_delta_weight(adapter)
            total = total.to(delta.dtype) + delta
            if self.planned[adapter].use_dora:
                total = self.rescaled(total, adapter)
            if self.planned[adapter].lora_bias:
                biases.append(self.lora_B[adapter].bias * self.scaling[adapter])
        updated = {self._weight_name: total.to(weight.dtype)}
        if biases:
            bias: Any = self.base().bias
            updated["bias"] = sum(biases, bias).to(bias.dtype)
        return updated

    def _weight(self) -> nn.Parameter:
        weight: nn.Parameter = getattr(self.base(), self._weight_name)
        return weight


class LoraLinear(LoraLayer):
    """LoRA on a linear layer, quantised or not, with a weight (out, in), or (in, out) in transformers' ``Conv1D``."""

    peft_name = "tuners.lora.layer.Linear"

    @classmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create ``A`` (r, in) and ``B`` (out, r)."""
        factors = linear_factors(
            *features_of(base, planned.kind), planned.r, first_tensor(base), has_bias=planned.lora_bias
        )
        if planned.variant is not None:
            return add_variant_parts(cls, base, planned, factors)
        return {**factors, **create_magnitude(base, planned)} if planned.use_dora else factors

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the base layer and add the updates, as one step of autograd where the result is the same."""
        adapters = self.effective_adapters()
        if len(adapters) != 1 or args or kwargs or self.steering.samples is not None:
            return super().forward(x, *args, **kwargs)
        [adapter], modules = adapters, self._modules
        base, planned = modules["base_layer"], self.planned[adapter]
        first, second = modules["lora_A"]._modules[adapter], modules["lora_B"]._modules[adapter]  # type: ignore[union-attr]  # noqa: SLF001
        is_plain = not (planned.use_dora or planned.lora_bias or planned.variant or (planned.dropout and self.training))
        if not (is_plain and can_fuse(base, first, second)):  # type: ignore[arg-type]
            return super().forward(x)
        return low_rank_linear(x, base, first, second, self.scaling[adapter])  # type: ignore[arg-type]

    def update_layer(self, adapter_name: str, r: int, lora_alpha: float, config: Any) -> None:
        """Make the factors of an adapter again with another rank: PEFT's EVA shares ranks out among the layers."""
        scaling = lora_alpha / (math.sqrt(r) if config.use_rslora else r)
        planned = self.planned[adapter_name]._replace(r=r, lora_alpha=lora_alpha, scaling=scaling)
        base, is_trained = self.base(), self.lora_A[adapter_name].weight.requires_grad
        parts = self.create_parts(base, planned)
        self.initialise(parts, how=config.init_lora_weights)
        fill_magnitude(parts, base, planned)
        self.insert(adapter_name, planned, parts)
        self.set_requires_grad(adapter_name, is_trained)

    def _shaped(self, delta: torch.Tensor) -> torch.Tensor:
        return delta.T if self._plan.fan_in_fan_out else delta


class LoraConv(LoraLayer):
    """LoRA on a convolution: ``A`` has its kernel, ``B`` a kernel of one and its groups.

    ``A`` walks over its input exactly as the base layer does, dilation and padding mode included (peft 0.21.2 drops
    both). With groups, ``A`` still reads every channel, as in PEFT; no grouped weight holds such an update, so it
    cannot be merged. A subclass with its own forward (padding, standardised weights) is run with the updated weight.
    """

    def peft_class(self) -> str:
        """Return the class for the number of dimensions."""
        return f"tuners.lora.layer.Conv{self._weight().ndim - 2}d"

    @classmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create ``A``, a full convolution into ``r`` channels, and ``B``, a grouped one with a kernel of one."""
        conv: Any = base
        where: dict[str, Any] = {"device": conv.weight.device, "dtype": adapter_dtype(conv.weight.dtype)}
        factor, sizes, groups = CONV_FACTORS[planned.kind], conv.kernel_size, conv.groups
        walk = {name: conv.__dict__[name] for name in CONV_FIELDS}
        ones, zeros = (1,) * len(sizes), (0,) * len(sizes)
        point = dict(zip(CONV_FIELDS, (ones, ones, zeros, ones, "zeros", 2 * zeros), strict=True))
        return {
            "lora_A": factor((planned.r, conv.in_channels, *sizes), 1, walk, where),
            "lora_B": factor(
                (conv.out_channels, planned.r // groups, *ones), groups, point, where, has_bias=planned.lora_bias
            ),
            **create_magnitude(base, planned),
        }

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the base layer and add the updates."""
        if is_plain_conv(self.base_layer) or self.groups > 1 or self.steering.samples is not None:
            return super().forward(x, *args, **kwargs)
        return run_with(self.base_layer, self.updated(self.effective_adapters()), (x, *args), kwargs)

    @property
    def takes_samples(self) -> bool:  # type: ignore[override]
        """Whether the update is added to the output, not to the weight."""
        return is_plain_conv(self.base())

    def check_mergeable(self, path: str, adapters: Iterable[str]) -> None:
        """Reject groups too: the product of ``A`` and ``B`` mixes them."""
        super().check_mergeable(path, adapters)
        if self.groups > 1:
            message = f"{path!r} has groups={self.groups}: LoRA on a grouped convolution cannot be merged."
            raise InvalidConfig(f"{message} Keep the adapter apart.", path=path, groups=self.groups)


class LoraEmbedding(LoraLayer):
    """LoRA on an embedding: a lookup in ``lora_embedding_A`` (r, ids), then ``lora_embedding_B`` (features, r)."""

    peft_name = "tuners.lora.layer.Embedding"

    @classmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create both factors as bare parameters."""
        weight: Any = base.weight
        ids, features = weight.shape
        where: dict[str, Any] = {"device": weight.device, "dtype": adapter_dtype(weight.dtype)}
        first = nn.Parameter(torch.empty((planned.r, ids), **where))
        second = nn.Parameter(torch.empty((features, planned.r), **where))
        return {"lora_embedding_A": first, "lora_embedding_B": second, **create_magnitude(base, planned)}

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill ``A`` with zeros and ``B`` normally; both normally if ``how`` is ``False``."""
        first, second, *_ = state_of(parts).values()
        if first.is_meta:
            return
        nn.init.normal_(second)
        if how:
            nn.init.zeros_(first)
        else:
            nn.init.normal_(first)

    def factors(self, adapter: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Return ``A`` (r, ids) and ``B`` (features, r)."""
        return self.lora_embedding_A[adapter], self.lora_embedding_B[adapter]

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the update for ids ``x``, (*ids, features), scaled as the base layer scales its own output."""
        base: Any = self.base()
        first, second = self.factors(adapter)
        looked_up = functional.embedding(
            x, first.T, base.padding_idx, base.max_norm, base.norm_type, base.scale_grad_by_freq
        )
        result = looked_up @ second.T * self.scaling[adapter]
        scale = getattr(base, "embed_scale", None)  # of transformers' scaled embeddings, as of Gemma and Bart
        return result if scale is None else result * scale

    def decompose(self, output: torch.Tensor, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the output with an adapter's update, each feature rescaled to its magnitude."""
        ratio = self.magnitude_ratio(adapter, dense_weight(self.base()))
        return ratio * output + ratio * self.update(x, adapter)

    def _shaped(self, delta: torch.Tensor) -> torch.Tensor:
        return delta.T
