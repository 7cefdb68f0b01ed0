"""Let a forward run on the meta device although it reads values.

Tensors a forward makes from constants (position ids, masks, grids, its token ids) stay small: their values are computed
beside them on the CPU, and reading them returns the true values. Any tensor computed from the model's weights reads as
a constant, the fake value, and a selection by it is as wide as it can be.

A model that is built inside :class:`FakeValues` keeps the values its constructors compute, such as buffers.
"""

from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from .tensor_values import (
    KNOWN,
    LARGEST,
    META,
    FakeConstants,
    find_fake,
    fitting_split,
    lift,
    lift_all,
    list_tensors,
    map_tensors,
    on_meta,
)

_CPU = torch.device("cpu")
_GETTER = type(Tensor.shape.__get__)  # type: ignore[attr-defined]  # a descriptor of C
_PLAIN = (Tensor, torch.nn.Parameter)
_SIMPLE = frozenset({int, float, bool, str, type(None), torch.dtype, torch.Size, torch.device, slice})
_MAKE_TENSORS = frozenset({"T", "mT", "H", "mH", "data", "real", "imag", "grad"})
_FROM_DATA = frozenset({"tensor", "as_tensor", "asarray", "scalar_tensor"})
_MOVES = frozenset({"cpu", "cuda", "xpu", "pin_memory"})
_SPLITS = frozenset({"split", "split_with_sizes"})
_RANDOM = frozenset({
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "dropout"),
    *("rand_like", "randn_like", "randint_like", "native_dropout"),
    *("normal_", "uniform_", "bernoulli_", "random_", "exponential_", "trunc_normal_"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
})  # fmt: skip
_IN_PLACE = frozenset({
    *("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"),
    *("__iand__", "__ior__", "__ixor__"),
})  # fmt: skip


class FakeValues(TorchFunctionMode):
    """As a context, return values for meta tensors; to be entered before any mode that watches.

    Args:
        constants: The constants that replace unknown values.

    Attributes:
        calls: Functions called so far.
    """

    def __init__(self, constants: FakeConstants | None = None) -> None:
        super().__init__()
        self.calls = 0
        self._constants = constants or FakeConstants()
        self._outdated: dict[int, Tensor] = {}
        self._constructors: frozenset[Any] = frozenset(_device_constructors())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        self.calls += 1
        if type(func) is _GETTER and func.__self__.__name__ not in _MAKE_TENSORS:
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if func in self._constructors:
            return self._construct(func, name, args, kwargs or {})
        args, named = _arguments_on_meta(name, args, kwargs or {})
        return args[0] if name in _MOVES else self._call(func, name, args, named)

    def _call(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "__iter__":
            return iter(self._compute(torch.unbind, "unbind", args, {}))
        if name == "__getitem__":  # masks in the index are replaced by the indices they select
            result = func(args[0], self._unmasked(args[1]))
            self._attach(func, args, {}, result)
            return result
        if name == "__setitem__":  # under a mask only to the values: the width of the selection may be fake
            tensor, index, value = args
            if not any(map(_is_mask, list_tensors(index))):
                func(tensor, self._unmasked(index), value)
            self._change(func, args, {})
            return None
        fake = find_fake(name)
        if fake is None:
            return self._compute(func, name, args, kwargs)
        try:
            return lift_all(self._with_values(func, args, kwargs))
        except LookupError:
            return fake(self._constants, func, args, kwargs)

    # --- values --------------------------------------------------------------------------------------------------

    def find_value(self, tensor: Tensor) -> Tensor | None:
        """Return the values of a meta tensor on the CPU, if they are known."""
        value: Tensor | None = getattr(tensor, KNOWN, None)
        if value is not None and self._outdated and _storage(value) in self._outdated:
            return None
        return value

    def _known_value(self, tensor: Tensor) -> Tensor:
        """Return the values of a meta tensor.

        Raises:
            LookupError: If they are unknown.
        """
        value = self.find_value(tensor)
        if value is None:
            raise LookupError
        return value

    def _with_values(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of ``func`` on the values, on the CPU.

        Raises:
            LookupError: If a value is unknown, or the function fails.
        """
        known = [_CPU if item is META else item for item in map_tensors(self._known_value, args)]
        named = {name: _CPU if v is META else v for name, v in map_tensors(self._known_value, kwargs).items()}
        try:
            return func(*known, **named)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise LookupError from error

    def _number(self, tensor: Tensor) -> Any:
        """Return the number in a tensor, or a list of its numbers."""
        value = self.find_value(tensor) if tensor.is_meta else tensor
        if value is not None:
            return value.tolist()
        constant = self._constants.constant(tensor)
        return constant if tensor.numel() == 1 else [constant] * len(tensor)

    # --- functions -----------------------------------------------------------------------------------------------

    def _construct(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function that makes tensors from no tensor: on meta, and if they are small on the CPU as well."""
        named = {key: value for key, value in kwargs.items() if key not in ("pin_memory", "data")}
        named = map_tensors(self._number, named)
        if name in _FROM_DATA:
            data, *rest = args or (kwargs["data"],)
            if isinstance(data, Tensor):
                return self._compute(Tensor.to, "to", (on_meta(data),), {"dtype": named.get("dtype", data.dtype)})
            return lift_all(func(map_tensors(self._number, data), *rest, **{**named, "device": _CPU}))
        args = map_tensors(self._number, args)
        result = func(*args, **{**named, "device": META})
        if isinstance(result, Tensor) and name not in _RANDOM and result.numel() <= LARGEST:
            setattr(result, KNOWN, func(*args, **{**named, "device": _CPU}))
        return result

    def _compute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function on meta, and on the values if all are known."""
        if name in _SPLITS:
            args = tuple(fitting_split(args, kwargs))
        try:
            result = func(*args, **kwargs)
        except RuntimeError as error:
            result = self._recompute(func, args, kwargs, error)
        is_in_place = (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE
        if is_in_place or kwargs.get("out") is not None:
            self._change(func, args, kwargs)
        elif name not in _RANDOM:
            self._attach(func, args, kwargs, result)
        return result

    def _recompute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: RuntimeError) -> Any:
        """Call a function that fails on meta: with numbers for tensors of one number, or on the values."""
        if "item()" in str(error):
            scalars = partial(map_tensors, lambda tensor: tensor if tensor.dim() else self._number(tensor))
            return func(*args[:1], *scalars(args[1:]), **scalars(kwargs))
        try:
            return lift_all(self._with_values(func, args, kwargs))
        except LookupError:
            raise error from None

    def _attach(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Store the values of a result with it, if those of the arguments are known and they are few."""
        if args and type(args[0]) in _PLAIN and not hasattr(args[0], KNOWN):
            return
        made = list(list_tensors(result))
        if not made or any(tensor.numel() > LARGEST for tensor in made):
            return
        try:
            values = list(list_tensors(self._with_values(func, args, kwargs)))
        except LookupError:
            return
        for tensor, value in zip(made, values, strict=False):
            if tensor.is_meta and tensor.shape == value.shape and not isinstance(tensor, torch.nn.Parameter):
                setattr(tensor, KNOWN, value)

    def _change(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Change the values as the tensor was changed; if that fails they are unknown from then on."""
        for tensor in list_tensors(kwargs.get("out", args[0] if args else None)):
            value = self.find_value(tensor)
            if value is None:
                continue
            try:
                self._with_values(func, args, kwargs)
            except LookupError:
                self._outdated[_storage(value)] = value  # kept, so that its storage's address is not used again

    # --- masks among indices -------------------------------------------------------------------------------------

    def _unmasked(self, index: Any) -> Any:
        if type(index) is tuple:
            parts = (self._selected(item) if _is_mask(item) else (self._unmasked(item),) for item in index)
            return tuple(chain.from_iterable(parts))
        if _is_mask(index):
            return self._selected(index)
        # Torch reads the values of the ends of a slice, and of a lone index.
        is_read = isinstance(index, slice) or (isinstance(index, Tensor) and not index.ndim)
        return map_tensors(self._number, index) if is_read else index

    def _selected(self, mask: Tensor) -> tuple[Tensor, ...]:
        value = self.find_value(mask)
        if value is not None:
            return tuple(lift(column) for column in value.nonzero(as_tuple=True))
        return self._constants.columns(tuple(mask.shape))


def _arguments_on_meta(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with every tensor, and every device argument, on meta."""
    if any(type(value) not in _SIMPLE and not (type(value) in _PLAIN and value.is_meta) for value in args):
        args = on_meta(args)
    if name == "to":
        args = (args[0], *(META if type(value) in (str, torch.device, int) else value for value in args[1:]))
    if not kwargs:
        return args, kwargs
    named = {key: on_meta(value) for key, value in kwargs.items() if key != "pin_memory"}
    if "device" in named:
        named["device"] = META
    return args, named


def _storage(value: Tensor) -> int:
    address: int = value.untyped_storage()._cdata  # noqa: SLF001 - data_ptr is the same for all that are empty
    return address


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
