"""The forward of a model with adapters: per-sample adapters, and the signature that trainers read."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any, cast

import torch
from torch import nn

from ..errors import InvalidConfig, quoted
from .injection.apply import layers_in
from .injection.host_model import survey_model
from .layers.wrappers import Steering

BASE = "__base__"
"""The name in ``adapter_names`` for a sample without an adapter."""


class Forward:
    """The user's model as a callable with the signature that trainers read to select the columns of a data set."""

    def __init__(self, model: nn.Module, steering: Steering) -> None:
        self.model = model
        self.steering = steering

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, with the adapters of ``adapter_names`` if it is given."""
        names = cast("Sequence[str] | None", kwargs.pop("adapter_names", None))
        if names is None:
            return self.model(*args, **kwargs)
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim)
        if (first := next(tensors, None)) is not None and len(first) != len(names):
            message = f"adapter_names has {len(names)} names for a batch of {len(first)}: give one for each sample."
            raise InvalidConfig(message, names=len(names), batch=len(first))
        with by_sample(self.steering, self.model, names):
            return self.model(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.model.forward)

    @property
    def __code__(self) -> CodeType:  # torch.export reads the source's place from it
        return type(self).__call__.__code__


@contextmanager
def by_sample(steering: Steering, model: nn.Module, adapter_names: Sequence[str] | None) -> Iterator[None]:
    """Use for each sample of the batches in a ``with`` block the adapter named for it; ``__base__`` means none.

    Raises:
        InvalidConfig: If a name is unknown, or a layer cannot use an adapter per sample.
    """
    if adapter_names is None or steering.disabled:
        yield
        return
    if model.training:
        raise InvalidConfig("adapter_names is for inference, and the model is training: call eval() first.")
    layers = [*layers_in(survey_model(model))]
    known = [*sorted({name for _, layer in layers for name in layer.adapters()}), BASE]
    for name in adapter_names:
        if name not in known:
            raise InvalidConfig(f"adapter_names holds {name!r}. There is: {quoted(known)}.")
    for path, layer in layers:
        for name in {*adapter_names} & {*layer.adapters()}:
            if layer.planned[name].use_dora:
                message = f"Cannot pass `adapter_names` when DoRA is enabled, as it is for {name!r} at {path!r}"
                raise InvalidConfig(f"{message}: activate it for the whole batch.", path=path, adapter_name=name)
        if not layer.takes_samples or layer.merged:
            why = "is merged: call unmerge_adapter first" if layer.merged else "has its update in the weight"
            raise InvalidConfig(f"{path!r} cannot give each sample its own adapter: it {why}.", path=path)
    before, steering.samples = steering.samples, tuple(adapter_names)
    try:
        yield
    finally:
        steering.samples = before
