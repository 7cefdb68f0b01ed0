"""Values of meta tensors: known ones, kept beside them on the CPU while they are few, and fake ones for the rest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

KNOWN = "_loradar_known"
"""Attribute of a meta tensor that holds its values."""
LARGEST = 1 << 17
"""Elements up to which values are computed; a mask of 256 x 256 has half as many."""
META = torch.device("meta")
_DEEPEST = 4
WIDEST = 1 << 14
"""Maximum rows of a selection of unknown width, so that a loop over them ends."""


# --- known values -----------------------------------------------------------------------------------------------------


def lift(value: Tensor) -> Tensor:
    """Return a tensor on meta with known values, if they are few."""
    lifted = value.detach().to(META)
    if value.device.type == "cpu" and value.numel() <= LARGEST:
        setattr(lifted, KNOWN, value.detach())
    return lifted


def lift_all(value: Any) -> Any:
    """Return a result with its tensors lifted."""
    if isinstance(value, Tensor):
        return lift(value)
    if isinstance(value, tuple | list) and any(isinstance(item, Tensor) for item in value):
        return tuple(lift_all(item) for item in value)
    return value


def map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Return a value with its tensors changed, through tuples, lists, dicts and slices."""
    if isinstance(value, Tensor):
        return change(value)
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([map_tensors(change, item) for item in value])
    if kind is dict:
        return {key: map_tensors(change, item) for key, item in value.items()}
    return slice(*map_tensors(change, (value.start, value.stop, value.step))) if kind is slice else value


def on_meta(value: Any) -> Any:
    """Return an argument with the tensors of other devices lifted."""
    return map_tensors(lambda tensor: tensor if tensor.is_meta else lift(tensor), value)


def list_tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, through tuples, lists, dicts and slices."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from list_tensors(item)
    elif type(value) is dict:
        yield from list_tensors(list(value.values()))
    elif type(value) is slice:
        yield from list_tensors([value.start, value.stop, value.step])


def list_outputs(value: Any) -> Iterator[Tensor]:
    """Yield the floating tensors in the result of a forward: outputs, tuples, caches, distributions."""
    yield from (tensor for tensor in list_results(value) if tensor.is_floating_point() or tensor.is_complex())


def list_results(value: Any, level: int = 0) -> Iterator[Tensor]:
    """Yield the tensors in the result of a forward, of whole numbers too."""
    items: Any = ()
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    elif level < _DEEPEST and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        items = vars(value).values()
    for item in items:
        yield from list_results(item, level + 1)


# --- fake values ------------------------------------------------------------------------------------------------------


class FakeList(list[Any]):
    """A list of fake numbers."""


@dataclass(frozen=True, slots=True)
class FakeConstants:
    """The constants that replace unknown values.

    Attributes:
        number: A number.
        flag: A truth value.
        wide: Whether a selection takes everything; otherwise it takes the first.
    """

    number: int = 1
    flag: bool = False
    wide: bool = True

    def constant(self, tensor: Tensor) -> bool | int | float:
        """Return the fake value of an element of a tensor."""
        if tensor.dtype is torch.bool:
            return self.flag
        return float(self.number) if tensor.is_floating_point() else self.number

    def rows(self, most: int) -> int:
        """Return how many of ``most`` rows are selected."""
        return min(most, WIDEST if self.wide else 1)

    def indices(self, shape: tuple[int, ...]) -> Tensor:
        """Return the indices an unknown mask selects, a row for each."""
        rows = torch.arange(self.rows(prod(shape))).unsqueeze(1)
        strides = torch.tensor([prod(shape[dim + 1 :]) for dim in range(len(shape))] or [1])
        return rows // strides % torch.tensor(shape or (1,))

    def columns(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return the same indices, a tensor for each dimension."""
        return tuple(lift(column.contiguous()) for column in self.indices(shape).unbind(1))


Fake = Callable[[FakeConstants, Any, Sequence[Any], dict[str, Any]], Any]
"""Return the fake result of a function from the constants, the function, its arguments and keyword arguments."""
_FAKES: dict[str, Fake] = {
    **dict.fromkeys(["__bool__", "is_nonzero", "__contains__", "equal", "allclose"], lambda fake, *_: fake.flag),
    **dict.fromkeys(["__int__", "__index__"], lambda fake, *_: fake.number),
    "__float__": lambda fake, *_: float(fake.number),
    "item": lambda fake, _, args, __: fake.constant(args[0]),
}


def find_fake(name: str) -> Fake | None:
    """Return the fake of a torch function by name, if the function depends on values."""
    return _FAKES.get(name)


def fakes(*names: str) -> Callable[[Fake], Fake]:
    """Register a function as the fake of these torch functions."""

    def register(fake: Fake) -> Fake:
        _FAKES.update(dict.fromkeys(names, fake))
        return fake

    return register


@fakes("__format__")
def _format(fake: FakeConstants, _func: Any, args: Sequence[Any], _kwargs: dict[str, Any]) -> str:
    value = fake.constant(args[0]) if not args[0].dim() else f"tensor{tuple(args[0].shape)}"
    return format(value, *args[1:])


@fakes("tolist")
def _tolist(fake: FakeConstants, _func: Any, args: Sequence[Any], _kwargs: dict[str, Any]) -> Any:
    value, shape = fake.constant(args[0]), tuple(args[0].shape)

    def nested(dim: int) -> Any:
        return [nested(dim + 1) for _ in range(min(shape[dim], WIDEST))] if dim < len(shape) else value

    return FakeList(nested(0)) if shape else value


@fakes("numpy", "__array__")
def _numpy(fake: FakeConstants, _func: Any, args: Sequence[Any], _kwargs: dict[str, Any]) -> Any:
    return torch.full(args[0].shape, fake.constant(args[0]), dtype=args[0].dtype).numpy()


@fakes("nonzero", "argwhere")
def _nonzero(fake: FakeConstants, _func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    shape = tuple(args[0].shape)
    return fake.columns(shape) if kwargs.get("as_tuple") else lift(fake.indices(shape))


@fakes("where")
def _where(fake: FakeConstants, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) + len(kwargs) > 1:
        return func(*args, **kwargs)
    (condition,) = args or kwargs.values()
    return fake.columns(tuple(condition.shape))


@fakes("masked_select")
def _masked_select(fake: FakeConstants, _func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    mask = kwargs.get("mask", args[-1])
    selected: Tensor = args[0].new_empty(fake.rows(max(args[0].numel(), mask.numel())))
    return selected


@fakes("unique", "unique_consecutive")
def _unique(_fake: FakeConstants, _func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return all elements, as if each differed from all others."""
    dim = kwargs.get("dim")
    tensor = args[0] if dim is not None else args[0].reshape(-1)
    order = torch.arange(tensor.shape[dim or 0])
    inverse = order if dim is not None else order.reshape(args[0].shape)
    extra = {"return_inverse": inverse, "return_counts": torch.ones_like(order)}
    requested = [lift(made) for name, made in extra.items() if kwargs.get(name)]
    return (tensor.clone(), *requested) if requested else tensor.clone()


@fakes("bincount")
def _bincount(fake: FakeConstants, _func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    least = kwargs.get("minlength", args[2] if len(args) > 2 else 0)  # noqa: PLR2004 - its position in the signature
    return torch.empty(max(int(least), fake.number + 1), dtype=torch.long, device=META)


@fakes("repeat_interleave")
def _repeat_interleave(fake: FakeConstants, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Repeat each row as often as is known, else all the same number of times, unless the output size is given."""
    named = dict(zip(("input", "repeats", "dim"), args, strict=False)) | kwargs
    repeats = named.get("repeats", named["input"])
    if not isinstance(repeats, Tensor):
        return func(*args, **kwargs)
    times = max(fake.number, 1)
    if "repeats" not in named:
        return lift(torch.arange(repeats.numel()).repeat_interleave(times)[: named.get("output_size")])
    dim = named.get("dim")
    tensor = named["input"] if dim is not None else named["input"].reshape(-1)
    length = tensor.shape[dim or 0]
    known = getattr(repeats, KNOWN, torch.tensor(times))
    rows = named.get("output_size") or int(known.expand(length).sum())
    return tensor.index_select(dim or 0, torch.empty(rows, dtype=torch.long, device=META))


@fakes("one_hot")
def _one_hot(fake: FakeConstants, _func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
    width = fake.number + 1 if isinstance(classes, int) and classes < 0 else int(classes)
    return torch.empty((*args[0].shape, width), dtype=torch.long, device=META)


@fakes("grid_sample")
def _grid_sample(_fake: FakeConstants, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return a result of the right shape that depends on both: on meta, torch interpolates by hundreds of calls."""
    image, grid = args  # which functional.grid_sample itself puts in order
    fits = image.ndim == grid.ndim and len(image) == len(grid) and grid.shape[-1] == image.ndim - 2
    if not (fits and grid.dtype == image.dtype):
        return func(*args, **kwargs)  # which says what is wrong
    shape = (*image.shape[:2], *grid.shape[1:-1])
    return (image.sum() + grid.sum()).expand(shape).contiguous()


def fitting_split(args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
    """Return the arguments of a split; fake sizes are replaced by even ones that add up."""
    sizes = args[1] if len(args) > 1 else None
    if not isinstance(sizes, FakeList) or not sizes:
        return args
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)  # noqa: PLR2004 - its position in the signature
    share, rest = divmod(args[0].shape[dim], len(sizes))
    return (args[0], [share + (number < rest) for number in range(len(sizes))], *args[2:])
