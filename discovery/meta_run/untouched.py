"""Leaves a model as it was found, whatever its forward does or raises."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_REGISTRIES = ("_parameters", "_buffers", "_modules")
_MUTABLE = (dict, list, set)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode without gradients inside, and back exactly as it was after.

    Kept are every module's attributes (one level deep in lists, dicts and sets), parameters, buffers with their values,
    hooks, training flags, ``requires_grad``, every configuration's fields, the random states, gradient mode and default
    dtype.
    """
    kept = _Kept(model)
    try:
        for module in kept.modules:
            module.__dict__["training"] = False
        with torch.no_grad():
            yield
    finally:
        kept.restore()


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the random states back as they were, whatever was drawn inside."""
    states = _random_states()
    try:
        yield
    finally:
        _set_random_states(states)


class _Kept:
    """What has to be put back."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self._attributes = [(module.__dict__, module.__dict__.copy()) for module in self.modules]
        found = (held for module in self.modules for held in module.__dict__.values() if isinstance(held, _MUTABLE))
        contents = {id(content): content for content in found}.values()
        self._empty = [content for content in contents if not content]
        self._contents = [(content, content.copy()) for content in contents if content]
        configs = {id(held["config"]): held["config"] for held, _ in self._attributes if "config" in held}
        self._configs = [(vars(c), vars(c).copy()) for c in configs.values() if hasattr(c, "__dict__")]
        self._buffers = [(b, b.clone()) for b in _buffers(self.modules) if not b.is_meta]
        self._gradients = [(p, p.requires_grad) for p in _parameters(self.modules)]
        self._states = _random_states()
        self._dtype = torch.get_default_dtype()

    def restore(self) -> None:
        """Put everything back."""
        for content in self._empty:
            if content:
                content.clear()
        for held, before in (*self._contents, *self._attributes, *self._configs):
            _put_back(held, before)
        with torch.no_grad():
            for buffer, values in self._buffers:
                buffer.copy_(values)
        for parameter, wanted in self._gradients:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
        _set_random_states(self._states)
        torch.set_default_dtype(self._dtype)


def _put_back(held: Any, before: Any) -> None:
    if isinstance(held, list):
        held[:] = before
    elif isinstance(held, set) or not _same(held, before):
        held.clear()
        held.update(before)


def _same(held: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Tell whether two dicts hold the same objects; tensors must not be compared by value."""
    return held.keys() == before.keys() and list(map(id, held.values())) == list(map(id, before.values()))


def _buffers(modules: list[nn.Module]) -> list[Tensor]:
    found = (buffer for module in modules for buffer in module.__dict__.get("_buffers", {}).values())
    return list({id(buffer): buffer for buffer in found if isinstance(buffer, Tensor)}.values())


def _parameters(modules: list[nn.Module]) -> list[Tensor]:
    found = (held for module in modules for held in module.__dict__.get("_parameters", {}).values())
    return list({id(held): held for held in found if isinstance(held, Tensor)}.values())


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), random.getstate(), np.random.get_state(), cuda  # noqa: NPY002 - the global one


def _set_random_states(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002 - the global one
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])
