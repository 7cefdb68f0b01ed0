"""Building with weights that are worth nothing but are real: fast, and the same every time.

Most of the time a model takes to build goes into random numbers. Here they are copied from a fixed pool instead, with
the spread that the model asked for. A torch function mode does it, so no foreign function is replaced.
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

SEED = 20
_POOL = 4194301
"""Numbers in a pool: a prime, so that no two rows of a matrix of usual width are the same."""
_SMALL = 0.02
"""The spread of what a model leaves at zero: that of most models' initial weights."""
_ABSURD = 1e4
"""What no initial weight reaches; memory that was never filled may."""
_SAMPLE = 256
_EMPTY = frozenset([torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty])


class Filling(TorchFunctionMode):
    """Fills tensors from the pools, one piece after the other, and what is allocated with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self._place = 0

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
        pool, scale, shift = fill(tensor, *args[1:], **named)
        if tensor.is_floating_point() and not tensor.is_meta:
            with torch._C.DisableTorchFunction(), torch.no_grad():  # noqa: SLF001 - its public name enters no context
                self._copy(tensor, pool())
                tensor.mul_(scale).add_(shift)
        return tensor

    def _copy(self, tensor: Tensor, pool: Tensor) -> None:
        """Copy numbers from where the last fill ended, as often around the pool as it takes."""
        numbers = tensor.view(-1) if tensor.is_contiguous() else torch.empty(tensor.numel())
        done = 0
        while done < len(numbers):
            piece = pool[self._place : self._place + len(numbers) - done]
            numbers[done : done + len(piece)] = piece
            done += len(piece)
            self._place = (self._place + len(piece)) % _POOL
        if not tensor.is_contiguous():
            tensor.copy_(numbers.view(tensor.shape))


@cache
def _uniform() -> Tensor:
    return torch.rand(_POOL, generator=torch.Generator().manual_seed(SEED))


@cache
def _normal() -> Tensor:
    return torch.randn(_POOL, generator=torch.Generator().manual_seed(SEED))


def _uniform_between(_tensor: Tensor, low: float = 0.0, high: float = 1.0, **named: Any) -> tuple[Any, float, float]:
    low, high = named.get("a", named.get("from", low)), named.get("b", named.get("to", high))
    return _uniform, high - low, low


def _normal_around(_tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_named: Any) -> tuple[Any, float, float]:
    return _normal, float(std), float(mean)


def _kaiming(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: Any = "leaky_relu",
    **_named: Any,
) -> tuple[Any, float, float]:
    """Spread by how much a layer reads or writes, as ``torch.nn.init.kaiming_uniform_`` does."""
    fan = tensor.numel() // max(1, tensor.shape[0 if mode == "fan_in" else 1])
    bound = nn.init.calculate_gain(nonlinearity, a) * (3.0 / max(1, fan)) ** 0.5
    return _uniform, 2 * bound, -bound


_FILLS: dict[str, Callable[..., tuple[Any, float, float]]] = {
    "uniform_": _uniform_between,
    "normal_": _normal_around,
    "kaiming_uniform_": _kaiming,
}
"""By their names, as methods and in ``torch.nn.init``: transformers puts wrappers in place of the latter."""


@contextmanager
def filled() -> Iterator[None]:
    """Build with weights inside, the same every time; random states of the process are put back on leaving."""
    was_collecting = gc.isenabled()
    own, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state others draw from
    gc.disable()
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), Filling():
            torch.manual_seed(SEED)
            random.seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002
            yield
    finally:
        random.setstate(own)
        np.random.set_state(arrays)  # noqa: NPY002
        if was_collecting:
            gc.enable()


def wake(model: nn.Module) -> None:
    """Give every parameter that is zero everywhere, or was never filled, small random values.

    Models start their gates, last layers and layer scales at zero, so that a block first does nothing. What stands
    behind such a gate gets no gradient before the gate has moved, though training opens it: an adapter there would
    look dead. Weights that are kept as buffers, such as those of a frozen norm, are such gates too. Called inside
    :func:`filled`.
    """
    frozen = (buffer for name, buffer in model.named_buffers() if name.endswith("weight"))
    with torch.no_grad():
        for parameter in (*model.parameters(), *frozen):
            if parameter.is_floating_point() and _needs_values(parameter):
                parameter.normal_(0.0, _SMALL)


def _needs_values(parameter: Tensor) -> bool:
    numbers = parameter.detach().flatten()
    largest = numbers[:: max(1, len(numbers) // _SAMPLE)].abs().max().item() if len(numbers) else 1.0
    return not (0 < largest < _ABSURD or (largest == 0 and bool(numbers.any())))  # also what is no number
