"""The experiment of a proof: a forward with an adapter on every layer, a backward from every output, and a merge."""

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ...domain.patterns import pattern_of
from ..meta_run.conditions import remove_chance
from ..meta_run.tensor_values import list_outputs, list_results
from .probes import Factored, Probe, Unfitting

TOLERANCE = 1e-4
"""Largest difference between merged and adapted outputs, relative to the largest number in them (fp32)."""
_SEED = 0
_MOST_FORWARDS = 48
"""Forwards that may go into finding the layers whose merging changes the outputs."""
_SMALL = 1e-6
"""A gradient whose largest number is below this is scaled up to one: only whether it is zero matters."""
_RECTIFIERS = frozenset({
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_),
    *(functional.relu6, functional.hardtanh, functional.hardtanh_, functional.hardsigmoid, functional.hardswish),
})  # fmt: skip


class Experiment:
    """Run forwards of one model and collect the gradients of its probes; they add up over the forwards.

    Args:
        probes: One for every layer; they are attached while a forward runs.
        mergeable: Paths of the layers whose merging is to be checked.

    Attributes:
        gradients: The largest gradient each layer's adapter received so far; ``nan`` if it was not a number.
        unfitting: Layers an adapter does not fit, with the reason.
        shifts: Layers whose merging changes the outputs, with the relative difference.
        error: Why the last backward failed, if it did.
        coded: Layers called by a forward that returns whole numbers alone, such as the codes of an image.
        is_random: Whether the same forward gives other outputs each time, so that merging cannot be checked.
    """

    def __init__(self, probes: Sequence[Probe], mergeable: Collection[str]) -> None:
        self.gradients: dict[str, float] = {}
        self.unfitting: dict[str, Unfitting] = {}
        self.shifts: dict[str, float] = {}
        self.error: str | None = None
        self.coded: set[str] = set()
        self.is_random = False
        self._probes = {probe.path: probe for probe in probes}
        self._mergeable = mergeable
        self._has_codes = False

    def __call__(self, forward: Callable[[], Any]) -> None:
        """Run one forward with its backward, and again merged; errors of the forward are raised."""
        before = {path: probe.calls for path, probe in self._probes.items()}
        for probe in self._probes.values():
            probe.attach()
        try:
            with torch.enable_grad():
                outputs = self._run_adapted(forward)
                called = [path for path, probe in self._probes.items() if probe.calls > before[path]]
                self._learn(called, outputs)
                unmoved = [path for path in called if self.gradients.get(path) == 0]
                if unmoved:
                    with Leaky():
                        again = self._run_adapted(forward)
                    self._learn(unmoved, again)
            moved = [self._probes[path] for path in called if path in self._mergeable and self.gradients.get(path)]
            self._check_merging(forward, [probe for probe in moved if isinstance(probe, Factored)], outputs)
        finally:
            for probe in self._probes.values():
                probe.detach()

    def _run_adapted(self, forward: Callable[[], Any]) -> list[Tensor]:
        """Return the outputs; a layer that an adapter does not fit on every call goes without one."""
        while True:
            outputs = self._run_seeded(forward)
            misfits = {path: probe.unfitting for path, probe in self._probes.items() if probe.unfitting is not None}
            self.unfitting |= misfits
            removed = [self._probes.pop(path) for path in misfits]
            if not any(probe.has_fitted for probe in removed):
                return outputs

    def _learn(self, called: list[str], outputs: list[Tensor]) -> None:
        """Store the gradient of every adapter whose layer was called."""
        for path in called:
            for parameter in self._probes[path].parameters:
                parameter.grad = None
        written = [output for output in outputs if output.requires_grad]
        if not outputs and self._has_codes:
            self.coded.update(called)
            self.gradients = dict.fromkeys(called, 0.0) | self.gradients
            return
        if not written:  # such as names of outputs in their place: that says nothing about any layer
            self.error = "no output depends on a weight"
            return
        try:
            _loss(written).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:  # an operation without a derivative, or changed in place
            self.error = str(error).partition("\n")[0][:200]
            return
        for path in called:
            known, size = self.gradients.get(path, 0.0), _smallest_gradient(self._probes[path].parameters)
            self.gradients[path] = known if known > 0 or size == 0 else size

    def _check_merging(self, forward: Callable[[], Any], probes: list[Factored], adapted: list[Tensor]) -> None:
        """Compare merged with adapted outputs; if they differ, find the slots that cause it by halving."""
        expected = [output.detach() for output in adapted]
        slots: dict[str, list[Factored]] = {}
        for probe in probes:
            slots.setdefault(pattern_of(probe.path), []).append(probe)
        waiting, forwards = [list(slots.values())] if slots else [], 0
        while waiting and forwards < _MOST_FORWARDS:
            group = waiting.pop()
            change, forwards = self._measure_merged(forward, group, expected), forwards + 1
            if change <= TOLERANCE:
                continue
            if forwards == 1 and self._measure_merged(forward, [], expected) > TOLERANCE:
                self.is_random = True
            elif len(group) == 1:
                self._add_shift(group, change)
            else:
                half = len(group) // 2
                waiting += [group[:half], group[half:]]
        for group in waiting:
            self._add_shift(group, float("inf"))

    def _add_shift(self, group: list[list[Factored]], change: float) -> None:
        for slot in group:
            self.shifts |= dict.fromkeys((probe.path for probe in slot), change)

    def _measure_merged(self, forward: Callable[[], Any], group: list[list[Factored]], expected: list[Tensor]) -> float:
        """Return the difference from the expected outputs while the probes of a group are merged."""
        probes = [probe for slot in group for probe in slot]
        for probe in probes:
            probe.merge()
        try:
            with torch.no_grad():
                outputs = self._run_seeded(forward)
        finally:
            for probe in probes:
                probe.merge(-1)
        return max(map(_difference, expected, outputs), default=0.0)

    def _run_seeded(self, forward: Callable[[], Any]) -> list[Tensor]:
        """Return every floating output of a forward that starts from the same random state each time."""
        torch.manual_seed(_SEED)
        random.seed(_SEED)
        np.random.seed(_SEED)  # noqa: NPY002 - the global one
        result = forward()
        outputs = {id(tensor): tensor for tensor in list_outputs(result)}
        self._has_codes = not outputs and next(list_results(result), None) is not None
        return list(outputs.values())


class Leaky(TorchFunctionMode):
    """As a context, make rectifiers leaky and scale up every gradient that became small on its way back.

    Untrained weights alone may hold a gradient up: cut off by a rectifier, or too small for their precision.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or a leaky rectifier in its place."""
        del types
        if func in _RECTIFIERS:
            result: Any = functional.leaky_relu(args[0] if args else next(iter((kwargs or {}).values())), 0.1)
        else:
            result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.grad_fn is not None and result.requires_grad:
            result.register_hook(_scale_up)  # type: ignore[no-untyped-call]
        return result


def _scale_up(gradient: Tensor) -> Tensor:
    largest = gradient.abs().max() if gradient.numel() else gradient.new_ones(())
    return gradient / largest if 0 < largest < _SMALL else gradient


def quiet(model: nn.Module) -> None:
    """Put a model that is thrown away in train mode without randomness, so that two forwards agree.

    Dropout is zero. Its default configuration may name a special token beyond its vocabulary: such a token gets the
    last row.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(_clamp_tokens)
    remove_chance(model)


def _clamp_tokens(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    rows = module._parameters["weight"]
    first = arguments[0] if arguments else None
    if rows is None or not isinstance(first, Tensor) or first.is_floating_point() or first.is_meta:
        return arguments
    return first.clamp(0, rows.shape[0] - 1), *arguments[1:]


def _loss(outputs: list[Tensor]) -> Tensor:
    """Return a sum over every output with random weights: a softmax sums to one, and a norm's output to nothing."""
    generator = torch.Generator().manual_seed(_SEED)
    parts = [torch.view_as_real(output) if output.is_complex() else output.float() for output in outputs]
    return torch.stack([(p * torch.randn(p.shape, generator=generator)).sum() for p in parts]).sum()


def _smallest_gradient(parameters: Sequence[Tensor]) -> float:
    """Return the size of the smallest gradient, zero for none; ``nan`` if one is not a number."""
    gradients = [parameter.grad for parameter in parameters]
    sizes = [float(g.abs().max()) if g is not None and g.numel() else 0.0 for g in gradients]
    return next((size for size in sizes if size != size), min(sizes, default=0.0))  # noqa: PLR0124 - nan


def _difference(expected: Tensor, output: Tensor) -> float:
    """Return the largest difference, relative to the largest number expected."""
    if expected.shape != output.shape or not torch.equal(expected.isfinite(), output.isfinite()):
        return float("inf")
    finite = expected.isfinite()
    size = float(expected[finite].abs().max()) if finite.any() else 0.0
    difference = float((expected - output)[finite].abs().max()) if finite.any() else 0.0
    return difference / size if size else difference
