"""Answers to questions about meta tensors nobody knows the values of: constants, and selections that fit together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from .known_values import META, lift

WIDEST = 1 << 14
"""Rows a selection of unknown width gets at most, so that a loop over them ends."""

Answer = Callable[["Guess", Any, Sequence[Any], dict[str, Any]], Any]


class GuessedList(list[Any]):
    """A list of numbers nobody knows."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What the unknown is taken for.

    Attributes:
        number: A number.
        flag: A truth value.
        wide: Whether a selection takes everything; otherwise it takes the first.
    """

    number: int = 1
    flag: bool = False
    wide: bool = True

    def constant(self, tensor: Tensor) -> bool | int | float:
        """Return what an element of a tensor is taken for."""
        if tensor.dtype is torch.bool:
            return self.flag
        return float(self.number) if tensor.is_floating_point() else self.number

    def rows(self, most: int) -> int:
        """Return how many of so many are selected."""
        return min(most, WIDEST if self.wide else 1)

    def places(self, shape: tuple[int, ...]) -> Tensor:
        """Return the indices an unknown mask selects, a row for each."""
        rows = torch.arange(self.rows(prod(shape))).unsqueeze(1)
        strides = torch.tensor([prod(shape[place + 1 :]) for place in range(len(shape))] or [1])
        return rows // strides % torch.tensor(shape or (1,))

    def columns(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the same indices, a tensor for each dimension."""
        return tuple(lift(column.contiguous()) for column in self.places(shape).unbind(1))


def find_answer(name: str) -> Answer | None:
    """Return what answers a function of this name, if it asks for values."""
    return _ANSWERS.get(name)


def _item(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    del func, kwargs
    return guess.constant(args[0])


def _bool(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    del func, args, kwargs
    return guess.flag


def _int(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    del func, args, kwargs
    return guess.number


def _float(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> float:
    del func, args, kwargs
    return float(guess.number)


def _format(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    del func, kwargs
    value = guess.constant(args[0]) if not args[0].dim() else f"tensor{tuple(args[0].shape)}"
    return format(value, *args[1:])


def _tolist(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    del func, kwargs
    nested = _nested(tuple(args[0].shape), guess.constant(args[0]))
    return GuessedList(nested) if isinstance(nested, list) else nested


def _nested(shape: tuple[int, ...], value: Any) -> Any:
    return [_nested(shape[1:], value) for _ in range(min(shape[0], WIDEST))] if shape else value


def _numpy(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    del func, kwargs
    return torch.full(args[0].shape, guess.constant(args[0]), dtype=args[0].dtype).numpy()


def _nonzero(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    del func
    shape = tuple(args[0].shape)
    return guess.columns(shape) if kwargs.get("as_tuple") else lift(guess.places(shape))


def _where(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) + len(kwargs) > 1:
        return func(*args, **kwargs)
    (condition,) = args or kwargs.values()
    return guess.columns(tuple(condition.shape))


def _masked_select(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    del func
    mask = kwargs.get("mask", args[-1])
    selected: Tensor = args[0].new_empty(guess.rows(max(args[0].numel(), mask.numel())))
    return selected


def _unique(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Everything differs from everything else."""
    del guess, func
    dim = kwargs.get("dim")
    tensor = args[0] if dim is not None else args[0].reshape(-1)
    order = torch.arange(tensor.shape[dim or 0])
    inverse = order if dim is not None else order.reshape(args[0].shape)
    extra = {"return_inverse": inverse, "return_counts": torch.ones_like(order)}
    asked = [lift(made) for name, made in extra.items() if kwargs.get(name)]
    return (tensor.clone(), *asked) if asked else tensor.clone()


def _bincount(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    del func
    least = kwargs.get("minlength", args[2] if len(args) > 2 else 0)  # noqa: PLR2004 - its place in the signature
    return torch.empty(max(int(least), guess.number + 1), dtype=torch.long, device=META)


def _repeat_interleave(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Each row is repeated the same number of times, unless it is said how many come out."""
    named = dict(zip(("input", "repeats", "dim"), args, strict=False)) | kwargs
    repeats = named.get("repeats", named["input"])
    if not isinstance(repeats, Tensor):
        return func(*args, **kwargs)
    times = max(guess.number, 1)
    if "repeats" not in named:
        return lift(torch.arange(repeats.numel()).repeat_interleave(times)[: named.get("output_size")])
    dim = named.get("dim")
    tensor = named["input"] if dim is not None else named["input"].reshape(-1)
    rows = named.get("output_size") or times * tensor.shape[dim or 0]
    return tensor.index_select(dim or 0, torch.empty(rows, dtype=torch.long, device=META))


def _one_hot(guess: Guess, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    del func
    classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
    width = guess.number + 1 if isinstance(classes, int) and classes < 0 else int(classes)
    return torch.empty((*args[0].shape, width), dtype=torch.long, device=META)


def fitting_split(args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
    """Return the arguments of a split; sizes nobody knows are made to add up."""
    sizes = args[1] if len(args) > 1 else None
    if not isinstance(sizes, GuessedList) or not sizes:
        return args
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)  # noqa: PLR2004 - its place in the signature
    share, rest = divmod(args[0].shape[dim], len(sizes))
    return (args[0], [share + (place < rest) for place in range(len(sizes))], *args[2:])


_ANSWERS: dict[str, Answer] = {
    "item": _item,
    "tolist": _tolist,
    "__bool__": _bool,
    "is_nonzero": _bool,
    "__contains__": _bool,
    "equal": _bool,
    "allclose": _bool,
    "__int__": _int,
    "__index__": _int,
    "__float__": _float,
    "__format__": _format,
    "numpy": _numpy,
    "__array__": _numpy,
    "nonzero": _nonzero,
    "argwhere": _nonzero,
    "where": _where,
    "masked_select": _masked_select,
    "unique": _unique,
    "unique_consecutive": _unique,
    "bincount": _bincount,
    "repeat_interleave": _repeat_interleave,
    "one_hot": _one_hot,
}
