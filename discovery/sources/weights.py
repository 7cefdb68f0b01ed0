"""Weights during construction: none at all, on meta, or real but worthless ones, quickly and always the same.

Most of the time a model takes to build goes into random numbers. Without weights, nothing is filled; with weights, they
are copied from a fixed pool, with the spread that the model requests. Torch function modes do both, so no foreign
function is replaced and nothing is left to restore.
"""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

_FILLING_METHODS = (
    *("uniform_", "normal_", "fill_", "zero_", "copy_", "erfinv_"),
    *("mul_", "add_", "sub_", "div_", "clamp_", "bernoulli_", "random_"),
)
_INITIALISERS = ("uniform_", "normal_", "constant_", "kaiming_uniform_")
_FILLING = frozenset(
    [*(getattr(Tensor, name) for name in _FILLING_METHODS), *(getattr(nn.init, name) for name in _INITIALISERS)]
)
"""Functions that change a tensor's values and never its shape; of ``torch.nn.init`` those a mode sees whole."""
_EMPTY = frozenset([torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty])

SEED = 20
_POOL = 4194301
"""Numbers in a pool: a prime, so that no two rows of a matrix of usual width are the same."""
_SMALL = 0.02
"""Spread of weights that a model leaves at zero: that of most models' initial weights."""
_ABSURD = 1e4
"""A value that no initial weight reaches; memory that was never filled may."""
_SAMPLE = 256


class OnMeta(DeviceContext):
    """As ``torch.device("meta")``, but without filling: a tensor on meta has no values."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, unless it would only fill a tensor on meta."""
        if func in _FILLING:
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector off inside this context."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


@contextmanager
def unfilled() -> Iterator[None]:
    """Build on meta inside this context, without filling weights and without collecting garbage in between."""
    with _uncollected(), OnMeta():
        yield


def move_to_meta(model: nn.Module) -> None:
    """Move tensors to meta that a constructor made by an old type (``torch.FloatTensor``); ties stay ties."""
    moved: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):  # noqa: SLF001  # the public setters refuse a swap of kind
            for name, tensor in tensors.items():
                if tensor is None or tensor.is_meta:
                    continue
                empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                is_parameter = isinstance(tensor, nn.Parameter)
                copied = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                tensors[name] = moved.setdefault(id(tensor), copied)  # type: ignore[assignment]


class Filling(TorchFunctionMode):
    """Fill tensors from the pools, one piece after the other, and new memory with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, unless it would draw random numbers into a tensor."""
        named = kwargs or {}
        if func in _EMPTY:
            return func(*args, **named).zero_()
        fill = _FILLS.get(getattr(func, "__name__", ""))
        if fill is None:
            return func(*args, **named)
        tensor = named.pop("tensor", None) if not args else args[0]
        draw, scale, shift = fill(tensor, *args[1:], **named)
        if tensor.is_floating_point() and not tensor.is_meta:
            with torch._C.DisableTorchFunction(), torch.no_grad():  # noqa: SLF001 - its public name enters no context
                self._copy(tensor, draw_pool(draw))
                tensor.mul_(scale).add_(shift)
        return tensor

    def _copy(self, tensor: Tensor, pool: Tensor) -> None:
        """Copy numbers from the end of the last fill on, around the pool as often as needed."""
        numbers = tensor.view(-1) if tensor.is_contiguous() else torch.empty(tensor.numel())
        done = 0
        while done < len(numbers):
            piece = pool[self._position : self._position + len(numbers) - done]
            numbers[done : done + len(piece)] = piece
            done += len(piece)
            self._position = (self._position + len(piece)) % _POOL
        if not tensor.is_contiguous():
            tensor.copy_(numbers.view(tensor.shape))


Fill = tuple[Callable[..., Tensor], float, float]
"""A function that draws numbers, such as ``torch.rand``, and their scale and shift."""


@cache
def draw_pool(draw: Callable[..., Tensor]) -> Tensor:
    """Return the pool of the numbers that a function draws."""
    return draw(_POOL, generator=torch.Generator().manual_seed(SEED))


def fill_uniform(_tensor: Tensor, low: float = 0.0, high: float = 1.0, **named: Any) -> Fill:
    """Return the fill of ``uniform_``."""
    low, high = named.get("a", named.get("from", low)), named.get("b", named.get("to", high))
    return torch.rand, high - low, low


def fill_normal(_tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_named: Any) -> Fill:
    """Return the fill of ``normal_``."""
    return torch.randn, float(std), float(mean)


def fill_kaiming(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: Any = "leaky_relu", **_named: Any
) -> Fill:
    """Return the fill of ``torch.nn.init.kaiming_uniform_``, spread by the inputs or outputs of a layer."""
    fan = tensor.numel() // max(1, tensor.shape[0 if mode == "fan_in" else 1])
    bound = nn.init.calculate_gain(nonlinearity, a) * (3.0 / max(1, fan)) ** 0.5
    return torch.rand, 2 * bound, -bound


_FILLS: dict[str, Callable[..., Fill]] = {
    "uniform_": fill_uniform,
    "normal_": fill_normal,
    "kaiming_uniform_": fill_kaiming,
}
"""By their names, as methods and in ``torch.nn.init``: transformers puts wrappers in place of the latter."""


@contextmanager
def filled() -> Iterator[None]:
    """Build with weights inside, the same every time; random states of the process are restored on leaving."""
    own, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state
    try:
        with _uncollected(), torch.random.fork_rng(devices=[]), torch.device("cpu"), Filling():
            torch.manual_seed(SEED)
            random.seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002
            yield
    finally:
        random.setstate(own)
        np.random.set_state(arrays)  # noqa: NPY002


def wake(model: nn.Module) -> None:
    """Give every parameter that is zero everywhere, or was never filled, small random values.

    Models start their gates, last layers and layer scales at zero, so that a block first does nothing. Layers behind
    such a gate get no gradient before the gate has moved, though training opens it: an adapter there would look dead.
    Weights that are kept as buffers, such as those of a frozen norm, are such gates too. Call it inside :func:`filled`.
    """
    frozen = (buffer for name, buffer in model.named_buffers() if name.endswith("weight"))
    with torch.no_grad():
        for parameter in (*model.parameters(), *frozen):
            if parameter.is_floating_point() and needs_values(parameter):
                parameter.normal_(0.0, _SMALL)


def needs_values(parameter: Tensor) -> bool:
    """Return whether a parameter is zero everywhere, or holds absurd values or values that are not numbers."""
    numbers = parameter.detach().flatten()
    largest = numbers[:: max(1, len(numbers) // _SAMPLE)].abs().max().item() if len(numbers) else 1.0
    return not (0 < largest < _ABSURD or (largest == 0 and bool(numbers.any())))
