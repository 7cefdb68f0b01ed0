"""One experiment: a forward with an adapter on every layer, a loss over every output, a backward, and a merge."""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...domain.patterns import pattern_of
from .leaky import Leaky
from .probes import Factored, Probe, Unfitting

TOLERANCE = 1e-4
"""How far merged outputs may be from adapted ones, beside the largest number in them (fp32)."""
_SEED = 0
_DEEPEST = 4
_MOST_FORWARDS = 48
"""Forwards that may go into finding the layers whose merging changes the outputs."""


class Experiment:
    """Watches the forwards of one model; what it learns of each layer adds up over them.

    Args:
        probes: One for every layer; they are attached while a forward runs.
        mergeable: Paths of the layers whose merging is to be checked.

    Attributes:
        gradients: The largest gradient each layer's adapter received so far; ``nan`` if it was no number.
        unfitting: Layers an adapter does not fit, with the reason.
        shifts: Layers whose merging changes the outputs, with how much.
        error: Why the last backward failed, if it did.
        is_random: Whether the same forward gives other outputs each time, so that merging cannot be judged.
    """

    def __init__(self, probes: Sequence[Probe], mergeable: Collection[str]) -> None:
        self.gradients: dict[str, float] = {}
        self.unfitting: dict[str, Unfitting] = {}
        self.shifts: dict[str, float] = {}
        self.error: str | None = None
        self.is_random = False
        self._probes = {probe.path: probe for probe in probes}
        self._mergeable = mergeable

    def __call__(self, forward: Callable[[], Any]) -> None:
        """Run one forward with its backward, and again merged; what the forward raises is raised."""
        before = {path: probe.calls for path, probe in self._probes.items()}
        for probe in self._probes.values():
            probe.attach()
        try:
            self._run(forward, before)
        finally:
            for probe in self._probes.values():
                probe.detach()

    def _run(self, forward: Callable[[], Any], before: Mapping[str, int]) -> None:
        with torch.enable_grad():
            outputs = self._adapted(forward)
            written = [output for output in outputs if output.requires_grad]
            called = [path for path, probe in self._probes.items() if probe.calls > before[path]]
            self._learn(called, written)
            unmoved = [path for path in called if self.gradients.get(path) == 0]
            if unmoved:
                with Leaky():
                    again = [output for output in self._adapted(forward) if output.requires_grad]
                self._learn(unmoved, again)
        merged = [self._probes[p] for p in called if p in self._mergeable and self.gradients.get(p)]
        self._check_merging(forward, [p for p in merged if isinstance(p, Factored)], outputs)

    def _adapted(self, forward: Callable[[], Any]) -> list[Tensor]:
        """Return the outputs; a layer that an adapter does not fit goes without."""
        while True:
            try:
                return _outputs_of(forward)
            except Unfitting as error:
                self.unfitting[error.path] = error
                self._probes.pop(error.path).is_silent = True

    def _learn(self, called: list[str], outputs: list[Tensor]) -> None:
        """Note the gradient of every adapter whose layer was called."""
        parameters = [p for path in called for p in self._probes[path].parameters]
        for parameter in parameters:
            parameter.grad = None
        if outputs:
            try:
                _loss(outputs).backward()  # type: ignore[no-untyped-call]
            except RuntimeError as error:  # an operation without a derivative, or changed in place
                self.error = str(error).partition("\n")[0][:200]
                return
        for path in called:
            sizes = [_size(p.grad) for p in self._probes[path].parameters]
            self.gradients[path] = _larger(self.gradients.get(path, 0.0), _smallest(sizes))

    def _check_merging(self, forward: Callable[[], Any], probes: list[Factored], adapted: list[Tensor]) -> None:
        """Merge, compare, take out again; if the outputs changed, find the slots that did it."""
        expected = [output.detach() for output in adapted]
        slots: dict[str, list[Factored]] = {}
        for probe in probes:
            slots.setdefault(pattern_of(probe.path), []).append(probe)
        waiting, forwards = [list(slots.values())] if slots else [], 0
        while waiting and forwards < _MOST_FORWARDS:
            group = waiting.pop()
            change, forwards = self._merged_change(forward, group, expected), forwards + 1
            if change <= TOLERANCE:
                continue
            if forwards == 1 and self._merged_change(forward, [], expected) > TOLERANCE:
                self.is_random = True
            elif len(group) == 1:
                self.shifts |= {probe.path: change for probe in group[0]}
            else:
                half = len(group) // 2
                waiting += [group[:half], group[half:]]
        self.shifts |= {probe.path: float("inf") for group in waiting for slot in group for probe in slot}

    def _merged_change(self, forward: Callable[[], Any], group: list[list[Factored]], expected: list[Tensor]) -> float:
        probes = [probe for slot in group for probe in slot]
        for probe in probes:
            probe.merge()
        try:
            with torch.no_grad():
                found = _outputs_of(forward)
        finally:
            for probe in probes:
                probe.merge(-1)
        return max(map(_difference, expected, found), default=0.0)


def _outputs_of(forward: Callable[[], Any]) -> list[Tensor]:
    """Return every floating output of a forward that starts from the same random state each time."""
    torch.manual_seed(_SEED)
    random.seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002 - the global one
    found = {id(tensor): tensor for tensor in list_floating(forward())}
    return list(found.values())


def list_floating(value: Any, level: int = 0) -> Iterator[Tensor]:
    """Yield the floating tensors in what a forward returned: outputs, tuples, caches, distributions."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
        return
    held: Any = ()
    if isinstance(value, Mapping):
        held = value.values()
    elif isinstance(value, list | tuple):
        held = value
    elif level < _DEEPEST and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        held = vars(value).values()
    for item in held:
        yield from list_floating(item, level + 1)


def _loss(outputs: list[Tensor]) -> Tensor:
    """Return a sum over every output with random weights: a softmax sums to one, and a norm's output to nothing."""
    generator = torch.Generator().manual_seed(_SEED)
    parts = [torch.view_as_real(output) if output.is_complex() else output.float() for output in outputs]
    return torch.stack([(p * torch.randn(p.shape, generator=generator)).sum() for p in parts]).sum()


def _size(gradient: Tensor | None) -> float:
    return float(gradient.abs().max()) if gradient is not None and gradient.numel() else 0.0


def _smallest(sizes: list[float]) -> float:
    return next((size for size in sizes if size != size), min(sizes, default=0.0))  # noqa: PLR0124 - nan


def _larger(known: float, found: float) -> float:
    return known if known > 0 or found == 0 else found


def _difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference, beside the largest number expected."""
    if expected.shape != found.shape or not torch.equal(expected.isfinite(), found.isfinite()):
        return float("inf")
    known = expected.isfinite()
    size = float(expected[known].abs().max()) if known.any() else 0.0
    difference = float((expected - found)[known].abs().max()) if known.any() else 0.0
    return difference / size if size else difference
