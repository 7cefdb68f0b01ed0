"""Lets a forward run on the meta device although it asks for values.

Tensors a forward makes from constants (position ids, masks, grids, the token ids it is given) stay small: their values
are computed beside them on the CPU, and a question about them is answered truly. A question about anything that comes
out of the model's weights is answered with a constant, and a selection by it is as wide as it can be.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors


from .shortcuts import find_result

KNOWN = "_loradar_known"
"""Attribute of a meta tensor that holds its values, on the CPU."""
LARGEST = 1 << 17
"""Elements up to which values are computed; a mask of 256 x 256 has half as many."""
WIDEST = 1 << 14
"""Rows a selection of unknown width gets at most, so that a loop over them ends."""

_META = torch.device("meta")
_CPU = torch.device("cpu")
_GETTER = type(Tensor.shape.__get__)  # type: ignore[attr-defined]  # a getset descriptor
_MAKES_TENSORS = frozenset({"T", "mT", "H", "mH", "data", "real", "imag", "grad"})
_RANDOM = frozenset("rand randn randint randperm normal empty bernoulli multinomial rand_like randn_like empty_like "
                    "randint_like new_empty dropout empty_strided new_empty_strided normal_ uniform_ bernoulli_ "
                    "random_ exponential_ trunc_normal_ native_dropout poisson".split())  # fmt: skip
_SIMPLE = frozenset({int, float, bool, str, type(None), torch.dtype, torch.Size, torch.device, slice})
_PLAIN = (Tensor, torch.nn.Parameter)
_IN_PLACE = frozenset("__setitem__ __iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __ior__ __iand__ __ixor__ "
                      "__ipow__ __imod__".split())  # fmt: skip
_MOVES = frozenset({"cpu", "cuda", "xpu", "pin_memory"})


class Answers(TorchFunctionMode):
    """As a context, answers what meta tensors cannot; enter it before any mode that watches.

    Args:
        number: What an unknown number is taken for.
        flag: What an unknown truth value is taken for.
        wide: Whether an unknown selection takes everything; otherwise it takes one row.
    """

    def __init__(self, number: int = 1, *, flag: bool = False, wide: bool = True) -> None:
        super().__init__()
        self._number = number
        self._flag = flag
        self._wide = wide
        self._spoilt: dict[int, Tensor] = {}
        self.calls = 0
        self._constructors: frozenset[Any] = frozenset(_device_constructors())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        self.calls += 1
        kwargs = kwargs or {}
        if type(func) is _GETTER and func.__self__.__name__ not in _MAKES_TENSORS:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if func in self._constructors:
            return self._make(func, name, args, kwargs)
        if any(type(value) not in _SIMPLE and not (type(value) in _PLAIN and value.is_meta) for value in args):
            args = _on_meta(args)
        if kwargs:
            kwargs = {key: _on_meta(value) for key, value in kwargs.items()}
        if name in _MOVES:
            return args[0]
        kwargs.pop("pin_memory", None)
        if "device" in kwargs:
            kwargs["device"] = _META
        if name == "to":
            args = (args[0], *(_device_as_meta(value) for value in args[1:]))
        if name == "__iter__":
            return iter(self._compute(torch.unbind, "unbind", args, {}))
        answer = _ANSWERS.get(name)
        if answer is not None:
            return self._answer(answer, func, args, kwargs)
        return self._compute(func, name, args, kwargs)

    def take(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a forward's inputs on meta; those that were on the CPU are known."""
        return {name: _on_meta(value) for name, value in values.items()}

    # --- values --------------------------------------------------------------------------------------------------

    def find_value(self, tensor: Tensor) -> Tensor | None:
        """Return the values of a meta tensor on the CPU, if they are known."""
        value: Tensor | None = getattr(tensor, KNOWN, None)
        if value is not None and self._spoilt and _storage(value) in self._spoilt:
            return None
        return value

    def _values(self, argument: Any) -> Any:
        """Return an argument with every tensor replaced by its values.

        Raises:
            LookupError: If a tensor's values are unknown.
        """
        if isinstance(argument, Tensor):
            value = self.find_value(argument)
            if value is None:
                raise LookupError
            return value
        if type(argument) in (tuple, list):
            return type(argument)([self._values(item) for item in argument])
        return _CPU if argument is _META else argument

    def _with_values(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what ``func`` makes of the values, or raise ``LookupError`` if that cannot be told."""
        args, kwargs = self._values(args), {key: self._values(value) for key, value in kwargs.items()}
        try:
            return func(*args, **kwargs)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            raise LookupError from error

    def _make(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function that makes tensors of nothing: on meta, and if they are small on the CPU as well."""
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        if name in ("tensor", "as_tensor", "asarray", "scalar_tensor"):
            return self._tensor(func, args, kwargs)
        args, kwargs = self._numbers(args), {key: self._numbers(value) for key, value in kwargs.items()}
        result = func(*args, **{**kwargs, "device": _META})
        if isinstance(result, Tensor) and name not in _RANDOM and result.numel() <= LARGEST:
            setattr(result, KNOWN, func(*args, **{**kwargs, "device": _CPU}))
        return result

    def _tensor(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        data, *rest = args or (kwargs.pop("data"),)
        if isinstance(data, Tensor):
            with self:
                return data.to(dtype=kwargs.get("dtype", data.dtype))
        known = func(self._numbers(data), *rest, **{**kwargs, "device": _CPU})
        return _lift(known) if isinstance(known, Tensor) else known

    def _numbers(self, argument: Any) -> Any:
        """Return an argument with one-element tensors replaced by numbers."""
        if isinstance(argument, Tensor):
            value = self.find_value(argument) if argument.is_meta else argument
            if value is not None:
                return value.tolist()
            return self._constant(argument) if argument.numel() == 1 else [self._constant(argument)] * len(argument)
        if type(argument) in (tuple, list):
            return type(argument)([self._numbers(item) for item in argument])
        return argument

    def _compute(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function on meta, and on the values if all are known."""
        changes = _changes(name, kwargs)
        try:
            result = find_result(name, args, kwargs)
            if result is None:
                result = func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            result = self._otherwise(func, args, kwargs, error)
        if changes:
            self._change(func, args, kwargs)
        elif name not in _RANDOM:
            self._attach(func, args, kwargs, result)
        return result

    def _otherwise(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> Any:
        """Call a function that meta refuses: with numbers for tensors of one number, or on the values."""
        if "item()" in str(error):
            rest = {key: self._scalars(value) for key, value in kwargs.items()}
            return func(*args[:1], *map(self._scalars, args[1:]), **rest)
        try:
            return _lift_all(self._with_values(func, args, kwargs))
        except LookupError:
            raise error from None

    def _scalars(self, argument: Any) -> Any:
        """Return an argument with tensors of one number replaced by it."""
        if isinstance(argument, Tensor):
            return self._numbers(argument) if not argument.dim() else argument
        if type(argument) in (tuple, list):
            return type(argument)([self._scalars(item) for item in argument])
        return argument

    def _attach(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if not self._all_known(args) or not self._all_known(kwargs):
            return
        made = list(_tensors(result))
        if not made or any(tensor.numel() > LARGEST for tensor in made):
            return
        try:
            values = list(_tensors(self._with_values(func, args, kwargs)))
        except LookupError:
            return
        for tensor, value in zip(made, values, strict=False):
            if tensor.is_meta and tensor.shape == value.shape and not isinstance(tensor, torch.nn.Parameter):
                setattr(tensor, KNOWN, value)

    def _all_known(self, arguments: Any) -> bool:
        if type(arguments) is tuple and arguments and type(arguments[0]) in _PLAIN and not hasattr(arguments[0], KNOWN):
            return False
        return all(self.find_value(tensor) is not None for tensor in _tensors(arguments))

    def _change(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Change the values as the tensor was changed; if that cannot be done they are known no longer."""
        changed = kwargs.get("out", args[0] if args else None)
        for tensor in _tensors(changed):
            value = self.find_value(tensor)
            if value is None:
                continue
            try:
                self._with_values(func, args, kwargs)
            except LookupError:
                self._spoilt[_storage(value)] = value

    # --- answers -------------------------------------------------------------------------------------------------

    def _answer(self, answer: Callable[..., Any], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return _lift_all(self._with_values(func, args, kwargs))
        except LookupError:
            return answer(self, func, args, kwargs)

    def _constant(self, tensor: Tensor) -> bool | int | float:
        if tensor.dtype is torch.bool:
            return self._flag
        return float(self._number) if tensor.is_floating_point() else self._number

    def _item(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del func, kwargs
        return self._constant(args[0])

    def _bool(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        del func, args, kwargs
        return self._flag

    def _int(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        del func, args, kwargs
        return self._number

    def _float(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        del func, args, kwargs
        return float(self._number)

    def _format(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        del func, kwargs
        value = self._constant(args[0]) if not args[0].dim() else f"tensor{tuple(args[0].shape)}"
        return format(value, *args[1:])

    def _tolist(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del func, kwargs
        nested = _nested(tuple(args[0].shape), self._constant(args[0]))
        return _Guessed(nested) if isinstance(nested, list) else nested

    def _numpy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del func, kwargs
        return torch.full(args[0].shape, self._constant(args[0]), dtype=args[0].dtype).numpy()

    def _nonzero(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        places = self._places(tuple(args[0].shape))
        if kwargs.get("as_tuple") or func is torch.where:
            return tuple(_lift(places[:, dim].contiguous()) for dim in range(places.shape[1]))
        return _lift(places)

    def _split(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Sizes that were guessed are made to add up."""
        sizes = next((value for value in args[1:2]), None)
        if isinstance(sizes, _Guessed):
            dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)  # noqa: PLR2004 - its place in the signature
            share, rest = divmod(args[0].shape[dim], len(sizes))
            args = (args[0], [share + (place < rest) for place in range(len(sizes))], *args[2:])
        result = func(*args, **kwargs)
        self._attach(func, args, kwargs, result)
        return result

    def _where(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) + len(kwargs) == 1:
            return self._nonzero(torch.where, args or tuple(kwargs.values()), {})
        return func(*args, **kwargs)

    def _masked_select(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        del func
        mask = kwargs.get("mask", args[-1])
        return args[0].new_empty(self._rows(max(args[0].numel(), mask.numel())))

    def _unique(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Everything differs from everything else."""
        del func
        dim = kwargs.get("dim", next((value for value in args[4:5]), None))
        tensor = args[0] if dim is not None else args[0].reshape(-1)
        rows = tensor.shape[dim or 0]
        asked = [kwargs.get(key, False) for key in ("return_inverse", "return_counts")]
        inverse = _indices(rows) if dim is not None else _indices(rows).reshape(args[0].shape)
        extra = [made for made, wanted in zip((inverse, _indices(rows)), asked, strict=True) if wanted]
        return (tensor.clone(), *extra) if extra else tensor.clone()

    def _bincount(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        del func
        return _indices(max(int(kwargs.get("minlength", 0)), self._number + 1, *(args[2:3] or (0,))))

    def _repeat_interleave(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """A tensor of unknown repeats repeats each row the same number of times, so that ``output_size`` fits."""
        repeats = kwargs.get("repeats", args[1] if len(args) > 1 else args[0])
        if not isinstance(repeats, Tensor):
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        times = max(self._number, 1)
        if len(args) == 1 and "repeats" not in kwargs:
            return _indices(kwargs.get("output_size") or times * repeats.numel())
        dim = kwargs.get("dim", args[2] if len(args) > 2 else None)  # noqa: PLR2004 - its place in the signature
        tensor = args[0] if dim is not None else args[0].reshape(-1)
        rows = kwargs.get("output_size") or times * tensor.shape[dim or 0]
        return tensor.index_select(dim or 0, _indices(rows))

    def _one_hot(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        del func
        classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
        classes = self._number + 1 if classes == -1 else classes
        return torch.empty((*args[0].shape, int(classes)), dtype=torch.long, device=_META)

    def _getitem(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A mask among the indices becomes the indices it selects."""
        tensor, index = args
        result = func(tensor, self._unmasked(index), **kwargs)
        self._attach(func, args, kwargs, result)
        return result

    def _setitem(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What a mask selects is as wide as what is written there: nothing needs to be written on meta."""
        if not any(_is_mask(index) for index in _tensors(args[1])):
            func(args[0], self._as_numbers(args[1]), *args[2:], **kwargs)
        self._change(func, args, kwargs)

    def _as_numbers(self, index: Any) -> Any:
        """Return an index whose slices have numbers for ends."""
        if isinstance(index, slice):
            ends = (index.start, index.stop, index.step)
            return slice(*(self._numbers(end) if isinstance(end, Tensor) else end for end in ends))
        return tuple(map(self._as_numbers, index)) if type(index) is tuple else index

    def _unmasked(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._as_numbers(index)
        if type(index) is tuple:
            flat: list[Any] = []
            for item in index:
                flat.extend(self._selected(item) if _is_mask(item) else (self._unmasked(item),))
            return tuple(flat)
        return self._selected(index) if _is_mask(index) else index

    def _selected(self, mask: Tensor) -> tuple[Tensor, ...]:
        value = self.find_value(mask)
        if value is not None:
            return tuple(_lift(place) for place in value.nonzero(as_tuple=True))
        places = self._places(tuple(mask.shape))
        return tuple(_lift(places[:, dim].contiguous()) for dim in range(mask.dim()))

    def _places(self, shape: tuple[int, ...]) -> Tensor:
        """Return the indices an unknown mask selects: all of them, or the first."""
        rows = self._rows(prod(shape))
        sizes = torch.tensor(shape[1:] + (1,)).flip(0).cumprod(0).flip(0) if shape else torch.ones(1)
        return torch.arange(rows).unsqueeze(1) // sizes.long() % torch.tensor(shape or (1,))

    def _rows(self, most: int) -> int:
        return min(most, WIDEST) if self._wide else min(most, 1)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "item": Answers._item,
    "tolist": Answers._tolist,
    "__bool__": Answers._bool,
    "__nonzero__": Answers._bool,
    "is_nonzero": Answers._bool,
    "__contains__": Answers._bool,
    "equal": Answers._bool,
    "allclose": Answers._bool,
    "__int__": Answers._int,
    "__index__": Answers._int,
    "__float__": Answers._float,
    "__format__": Answers._format,
    "numpy": Answers._numpy,
    "__array__": Answers._numpy,
    "nonzero": Answers._nonzero,
    "argwhere": Answers._nonzero,
    "split": Answers._split,
    "split_with_sizes": Answers._split,
    "where": Answers._where,
    "masked_select": Answers._masked_select,
    "unique": Answers._unique,
    "unique_consecutive": Answers._unique,
    "bincount": Answers._bincount,
    "repeat_interleave": Answers._repeat_interleave,
    "one_hot": Answers._one_hot,
    "__getitem__": Answers._getitem,
    "__setitem__": Answers._setitem,
}


class _Guessed(list[Any]):
    """A list of numbers nobody knows."""


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, through tuples, lists, dicts and slices."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif type(value) is dict:
        yield from _tensors(list(value.values()))
    elif type(value) is slice:
        yield from _tensors([value.start, value.stop, value.step])


def _on_meta(value: Any) -> Any:
    """Return a value with tensors of other devices replaced by meta tensors that know their values."""
    if isinstance(value, Tensor):
        return value if value.is_meta else _lift(value)
    if type(value) in (tuple, list):
        return type(value)([_on_meta(item) for item in value])
    return value


def _lift(value: Tensor) -> Tensor:
    lifted = value.detach().to(_META)
    if value.device.type == "cpu" and value.numel() <= LARGEST:
        setattr(lifted, KNOWN, value.detach())
    return lifted


def _lift_all(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _lift(value)
    if isinstance(value, tuple | list) and any(isinstance(item, Tensor) for item in value):
        return tuple(_lift_all(item) for item in value)
    return value


def _changes(name: str, kwargs: dict[str, Any]) -> bool:
    return (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE or kwargs.get("out") is not None


def _device_as_meta(value: Any) -> Any:
    return _META if isinstance(value, str | torch.device) or type(value) is int else value


def _storage(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def _indices(rows: int) -> Tensor:
    return _lift(torch.arange(rows))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _nested(shape: tuple[int, ...], value: Any) -> Any:
    if not shape:
        return value
    if prod(shape) > WIDEST:
        shape = (min(shape[0], WIDEST), *(min(size, 1) for size in shape[1:]))
    return [_nested(shape[1:], value) for _ in range(shape[0])]
