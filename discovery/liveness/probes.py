"""Probes: a rank-one LoRA adapter on each layer of a model that is thrown away, around the layer's own forward.

A probe replaces the same attribute as PEFT's adapter (``module.forward``), so the probe of a layer whose weight is read
without it sees nothing. Source of the method: arXiv:2106.09685.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS
from ..facts.misfits import OWN_FORWARD, PACKED, is_plain_conv

_SHARE = 0.1
"""Size of an update relative to the output: above rounding, and too small to change the behaviour of a model."""


class Probe:
    """An adapter on one layer; this one trains the layer itself, such as a norm.

    Attributes:
        path: The path of the layer.
        parameters: The tensors it trains.
        calls: The number of calls of the layer's forward.
        is_silent: Whether it adds nothing, because it is merged or does not fit.
        unfitting: Why it does not fit the layer, once a call has shown it.
        has_fitted: Whether it was added to an output.
    """

    def __init__(self, path: str, module: nn.Module, parameters: Sequence[Tensor]) -> None:
        self.path = path
        self.module = module
        self.parameters = [parameter.requires_grad_() for parameter in parameters]
        self.calls = 0
        self.is_silent = False
        self.unfitting: Unfitting | None = None
        self.has_fitted = False

    def forward(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the output of the adapted layer; ``inner`` is the layer's own forward."""
        return inner(*args, **kwargs)

    def attach(self) -> None:
        """Replace the layer's forward."""
        inner = self.module.forward

        def count(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return self.forward(inner, *args, **kwargs)

        self.module.__dict__["forward"] = count

    def detach(self) -> None:
        """Restore the layer's forward."""
        self.module.__dict__.pop("forward", None)


class Factored(Probe, ABC):
    """A layer with an update of two factors: ``a`` reads, ``b`` writes.

    Args:
        path: The path of the layer.
        module: The module whose forward uses the weight.
        weight: The layer's own weight.
        read: Shape of ``a``.
        write: Shape of ``b``.
    """

    def __init__(
        self, path: str, module: nn.Module, weight: Tensor, read: tuple[int, ...], write: tuple[int, ...]
    ) -> None:
        self.weight = weight
        fan_in = max(1, torch.Size(read[1:]).numel())
        spread = float(weight.detach().float().std()) if weight.numel() > 1 else 0.0
        self.a = torch.randn(read) * fan_in**-0.5
        self.b = torch.randn(write) * _SHARE * fan_in**0.5 * (spread or 1.0)
        super().__init__(path, module, (self.a, self.b))

    @property
    @abstractmethod
    def delta(self) -> Tensor:
        """The update that merging adds to the weight."""

    def merge(self, sign: int = 1) -> None:
        """Add the update to the weight, or subtract it again."""
        with torch.no_grad():
            self.weight.data += sign * self.delta.to(self.weight.dtype)
        self.is_silent = sign > 0


class Added(Factored):
    """A layer with an update added to its output."""

    def forward(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the output of the adapted layer; the layer's own from the first call on that does not fit."""
        written = inner(*args, **kwargs)
        if self.is_silent:
            return written
        read = args[0] if args else next(iter(kwargs.values()))
        first, *rest = written if isinstance(written, tuple) else (written,)  # a user's linear may return more values
        try:
            first = first + self.fit_update(read, first)
        except Unfitting as error:
            self.unfitting = error.without_frames()
            self.is_silent = True
            return written
        self.has_fitted = True
        return (first, *rest) if isinstance(written, tuple) else first

    def fit_update(self, read: Any, written: Any) -> Tensor:
        """Return the update for an output.

        Raises:
            Unfitting: If it has another shape: a user's class may compute with other inputs and outputs.
        """
        name = type(self.module).__name__
        if not isinstance(read, Tensor) or not isinstance(written, Tensor):
            raise Unfitting(self.path, f"{name} does not turn one tensor into another")
        try:
            update = self.update(read).to(written.dtype)
        except RuntimeError as error:
            raise Unfitting(self.path, f"no adapter fits {name}: {str(error).partition(chr(10))[0][:120]}") from error
        if update.shape != written.shape:  # a convolution that pads by itself, say, fits images of other sizes
            says = f"an adapter writes {list(update.shape)}, {name} {list(written.shape)}"
            raise Unfitting(self.path, says, is_never=isinstance(self, Dense))
        return update

    @abstractmethod
    def update(self, read: Tensor) -> Tensor:
        """Return the update for an input."""


class Dense(Added):
    """A linear, its weight transposed or not."""

    def __init__(self, layer: Layer, module: nn.Module, weight: Tensor) -> None:
        super().__init__(layer.path, module, weight, (1, layer.in_features or 1), (layer.out_features or 1, 1))
        self._is_transposed = layer.kind == "transposed_linear"

    def update(self, read: Tensor) -> Tensor:
        """Return the update for an input."""
        return functional.linear(functional.linear(read.to(self.a.dtype), self.a), self.b)

    @property
    def delta(self) -> Tensor:
        """The update that merging adds to the weight."""
        product = torch.mm(self.b, self.a)
        return product.t() if self._is_transposed else product


class Lookup(Added):
    """An embedding."""

    def __init__(self, layer: Layer, module: nn.Module, weight: Tensor) -> None:
        super().__init__(layer.path, module, weight, (weight.shape[0], 1), (1, weight.shape[1]))

    def update(self, read: Tensor) -> Tensor:
        """Return the update for an input."""
        return torch.matmul(functional.embedding(read, self.a), self.b)

    @property
    def delta(self) -> Tensor:
        """The update that merging adds to the weight."""
        return torch.mm(self.a, self.b)


class Convolution(Added):
    """A convolution: one rank for each of its groups, as PEFT 0.21.2 builds it."""

    ranks = 1

    def __init__(self, layer: Layer, module: nn.Module, weight: Tensor) -> None:
        self._groups = layer.groups
        self._convolve: Callable[..., Tensor] = getattr(functional, layer.kind)
        ones = (1,) * (weight.ndim - 2)
        read, write = (self.ranks * layer.groups, *weight.shape[1:]), (weight.shape[0], self.ranks, *ones)
        super().__init__(layer.path, module, weight, read, write)

    def update(self, read: Tensor) -> Tensor:
        """Return the update for an input."""
        module: Any = self.module
        padding = module.padding
        if module.padding_mode != "zeros":
            read = functional.pad(read, module._reversed_padding_repeated_twice, mode=module.padding_mode)
            padding = 0
        read = read.to(self.a.dtype)
        inner = self._convolve(read, self.a, None, module.stride, padding, module.dilation, self._groups)
        return self._convolve(inner, self.b, None, groups=self._groups)

    @property
    def delta(self) -> Tensor:
        """The update that merging adds to the weight."""
        rows = self.weight.shape[0] // self._groups
        return torch.mul(self.b, self.a.repeat_interleave(rows, dim=0))


class OwnConvolution(Convolution):
    """A convolution with a forward of its own, such as one that pads by itself: PEFT makes both factors of its class.

    A class that standardises its weights needs more than one for each channel.
    """

    ranks = 2

    def update(self, read: Tensor) -> Tensor:
        """Return the update for an input.

        Raises:
            Unfitting: If the class takes other arguments.
        """
        base: Any = self.module
        make, ones = type(base), (1,) * len(base.kernel_size)
        try:
            inner = make(base.in_channels, self.ranks, base.kernel_size, base.stride, base.padding, bias=False)
            outer = make(self.ranks, base.out_channels, ones, ones, groups=1, bias=False)
        except TypeError as error:
            raise Unfitting(self.path, f"no adapter fits {make.__name__}: {error}", is_never=True) from error
        for factor, weight in ((inner, self.a), (outer, self.b)):
            factor._parameters["weight"] = weight
        written: Tensor = outer(inner(read.to(self.a.dtype)))
        return written

    @property
    def delta(self) -> Tensor:
        """The update that merging adds to the weight."""
        product: Tensor = torch.tensordot(self.b.flatten(1), self.a, 1)
        return product


class InWeight(Factored):
    """A matrix or a stack of matrices, such as fused experts; its owner's forward sees the sum."""

    def __init__(self, path: str, owner: nn.Module, name: str) -> None:
        self._registry: dict[str, Any] = owner._parameters
        self._name = name
        weight = cast("Tensor", owner._parameters[name])
        *stack, first, second = weight.shape
        super().__init__(path, owner, weight, (*stack, 1, second), (*stack, first, 1))

    @property
    def delta(self) -> Tensor:
        """The update that merging adds to the weight."""
        return torch.matmul(self.b, self.a)

    def forward(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the output of the owner with the sum as its weight."""
        if self.is_silent:
            return inner(*args, **kwargs)
        own = self._registry[self._name]
        self._registry[self._name] = own + self.delta.to(own.dtype)
        try:
            return inner(*args, **kwargs)
        finally:
            self._registry[self._name] = own


class Multihead(InWeight):
    """``nn.MultiheadAttention``: its forward sees the sums of its packed input projection and of ``out_proj``."""

    def __init__(self, layer: Layer, module: nn.Module) -> None:
        super().__init__(layer.path, module, PACKED)
        self._output = InWeight(layer.path, cast("nn.Module", module._modules["out_proj"]), "weight")
        self.parameters = [*self.parameters, *self._output.parameters]

    def forward(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the output of the attention with both sums as its weights."""
        return super().forward(partial(self._output.forward, inner), *args, **kwargs)

    def merge(self, sign: int = 1) -> None:
        """Add both updates to the weights, or subtract them again."""
        super().merge(sign)
        self._output.merge(sign)


class Unfitting(Exception):
    """An adapter made as PEFT makes it does not fit the layer; where ``is_never``, it fits on no input."""

    def __init__(self, path: str, says: str, *, is_never: bool = False) -> None:
        super().__init__(f"{path}: {says}")
        self.path = path
        self.says = says
        self.is_never = is_never

    def without_frames(self) -> "Unfitting":
        """Return the error without its traceback, whose frames would keep every tensor of the forward."""
        if self.__cause__ is not None:
            self.__cause__.__traceback__ = None
        return self.with_traceback(None)


def make_probes(model: nn.Module, layers: Iterable[Layer]) -> list[Probe]:
    """Return a probe for every layer that some method could adapt, none attached."""
    modules = dict(model.named_modules())
    probes = (make_probe(layer, modules) for layer in layers)
    return [probe for probe in probes if probe is not None]


def make_probe(layer: Layer, modules: dict[str, nn.Module]) -> Probe | None:
    """Return the probe for a layer by its kind, if it has a floating weight."""
    if layer.kind == "expert_parameter":
        owner, _, name = layer.path.rpartition(".")
        return InWeight(layer.path, modules[owner], name)
    module = modules[layer.path]
    if layer.kind == "multihead_attention":
        return Multihead(layer, module) if layer.misfit in (None, OWN_FORWARD) else None
    if layer.kind == "norm":
        own = [p for p in module._parameters.values() if p is not None and p.is_floating_point()]
        return Probe(layer.path, module, own)
    weight, make = module._parameters.get("weight"), _PROBES.get(layer.kind)
    if layer.kind in CONV_KINDS and layer.groups == 1 and not is_plain_conv(module):
        make = OwnConvolution
    return make(layer, module, weight) if make and weight is not None and weight.is_floating_point() else None


_PROBES: dict[str, Callable[[Layer, nn.Module, Tensor], Probe]] = {
    "linear": Dense,
    "transposed_linear": Dense,
    "embedding": Lookup,
    **dict.fromkeys(CONV_KINDS, Convolution),
}
