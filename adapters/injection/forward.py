"""The forward of a model with adapters: per-sample adapters, and the signature that trainers read."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ...discovery import find_inner
from ...errors import InvalidConfig, quoted
from ...warn import warn
from ..layers.wrappers import AdapterLayer, Steering
from .apply import layers_in
from .host_model import survey_model

BASE = "__base__"
"""The name in ``adapter_names`` for a sample without an adapter."""


class Forward:
    """The user's model as a callable with the signature that trainers read to select the columns of a data set.

    Attributes:
        model: The model with adapters.
        steering: The switch of its adapters.
        runner: What is called: the model, or the compiled or data-parallel wrapper that the user has around it.
        is_seen_training: Whether a forward in train mode has shown whether adapters get gradients.
    """

    def __init__(self, model: nn.Module, steering: Steering, around: Sequence[nn.Module] = ()) -> None:
        self.model = model
        self.steering = steering
        outdated = [index for index, wrapper in enumerate(around) if not find_inner(wrapper)]
        self.runner = next(iter(around[max(outdated, default=-1) + 1 :]), model)
        self.is_seen_training = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, with the adapters of ``adapter_names`` if it is given."""
        output = self.run(*args, **kwargs)
        if not self.is_seen_training and self.model.training and torch.is_grad_enabled():
            self.is_seen_training = torch.compiler.is_compiling() or self._warn_if_untrained(output)
        return output

    def _warn_if_untrained(self, output: Any) -> bool:
        """Warn of an output that no adapter gets a gradient from; return whether that could be told."""
        tensors = [each for each in tree_leaves(output) if isinstance(each, torch.Tensor) and each.is_floating_point()]
        if not tensors or self.steering.disabled or any(each.requires_grad for each in tensors):
            return bool(tensors) and not self.steering.disabled
        survey = survey_model(self.model)
        if not any(each.requires_grad for each in self.model.parameters()):
            return True  # frozen, as it is wanted
        why = "they are bypassed, or in blocks that pass gradients on only if their input needs one (reversible layers)"
        way_out = "Call enable_input_require_grads() on the model, if it has that, or adapt other layers"
        if any(layer.merged for _, layer in layers_in(survey)):
            why, way_out = "they are merged into the base weights", "Call unmerge_adapter() first"
        message = f"The output of {type(self.model).__name__} in train mode needs no gradient, so no adapter trains"
        warn(f"{message}: {why}. {way_out}.")
        return True

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model without a look at its output."""
        names = cast("Sequence[str] | None", kwargs.pop("adapter_names", None))
        if names is None:
            return self.runner(*args, **kwargs)
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim)
        if (first := next(tensors, None)) is not None and len(first) != len(names):
            message = "Length of `adapter_names` should be the same as the number of inputs, but got "
            raise InvalidConfig(f"{message}{len(names)} and {len(first)}.", names=len(names), batch=len(first))
        if isinstance(self.runner, nn.DataParallel) and len(self.runner.device_ids) > 1:
            message = "adapter_names is for one device, and DataParallel splits it: adapt the model inside."
            raise InvalidConfig(message)
        with by_sample(self.steering, self.model, names):
            return self.runner(*args, **kwargs)

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
        raise InvalidConfig("Cannot pass `adapter_names` when the model is in training mode: call eval() first.")
    own = [layer.steering for layer in _check_samples(model, adapter_names) if layer.steering.model is not None]
    before = [(each, each.samples) for each in (steering, *own)]
    for each, _ in before:
        each.samples = tuple(adapter_names)
    try:
        yield
    finally:
        for each, samples in before:
            each.samples = samples


def _check_samples(model: nn.Module, adapter_names: Sequence[str]) -> list[AdapterLayer]:
    """Return the adapted layers of a model, each of which can use an adapter per sample, by these names."""
    layers = [*layers_in(survey_model(model))]
    known = [*sorted({name for _, layer in layers for name in layer.adapters()}), BASE]
    if unknown := [name for name in dict.fromkeys(adapter_names) if name not in known]:
        message = f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}"
        raise InvalidConfig(f"{message}. adapter_names may hold: {quoted(known)}.", adapter_names=unknown)
    for path, layer in layers:
        if why := _why_alike(layer, {*adapter_names}):
            raise InvalidConfig(f"{why}: {path!r} runs all samples alike.", path=path)
    return [layer for _, layer in layers]


def _why_alike(layer: AdapterLayer, names: set[str]) -> str:
    """Return the reason, in PEFT's words, why a layer cannot run these adapters per sample; empty if it can."""
    if layer.merged:
        return "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first"
    if any(layer.planned[name].use_dora for name in names & {*layer.adapters()}):
        return "Cannot pass `adapter_names` when DoRA is enabled"
    if not layer.takes_samples:
        return f"{repr(layer).partition('(')[0]} does not support mixed adapter batches yet"
    return ""
