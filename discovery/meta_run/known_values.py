"""Meta tensors that know their values: these are kept beside them on the CPU while they are few."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

KNOWN = "_loradar_known"
"""Attribute of a meta tensor that holds its values."""
LARGEST = 1 << 17
"""Elements up to which values are computed; a mask of 256 x 256 has half as many."""
META = torch.device("meta")


def lift(value: Tensor) -> Tensor:
    """Return a tensor on meta that knows its values, if they are few."""
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


def on_meta(value: Any) -> Any:
    """Return an argument with the tensors of other devices lifted."""
    if isinstance(value, Tensor):
        return value if value.is_meta else lift(value)
    if type(value) in (tuple, list):
        return type(value)([on_meta(item) for item in value])
    if type(value) is dict:
        return {key: on_meta(item) for key, item in value.items()}
    return value


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
