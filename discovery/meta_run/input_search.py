"""Finds inputs a forward runs with: the likeliest first, then what the last failure suggests."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import nn

from .fake_constants import Guess
from .inputs import Inputs, Plan, wanted_by

_RANKS = (
    re.compile(r"values to unpack \(expected (\d+)"),
    re.compile(r"is not equal to len\(dims\) = (\d+)"),
    re.compile(r"or (\d+)D \(batched\) input to conv"),
    re.compile(r"Expected (\d+)-D tensors"),
    re.compile(r"but got (\d+)-D for tensor"),
)
PATIENCE = 10
"""Plans in a row that got no further than the best."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a forward failed.

    Attributes:
        text: The error, whole.
        progress: Functions called before it, or modules entered.
        module: The module that was entered last, if any.
        shape: The shape of its first input, if it had one.
    """

    text: str
    progress: int
    module: nn.Module | None = None
    shape: tuple[int, ...] | None = None


class Search:
    """Proposes plans; told how one failed, it goes on from the plan that got furthest."""

    def __init__(self, inputs: Inputs, first: Plan) -> None:
        self._inputs = inputs
        self._tried: list[Plan] = []
        self._fruitless = 0
        self._best: tuple[int, Plan] | None = None
        self._moves: Iterator[Plan] = iter([first])

    def next_plan(self) -> Plan | None:
        """Return a plan not tried yet, or ``None`` if nothing is left to try."""
        if self._fruitless >= PATIENCE:
            return None
        plan = next((plan for plan in self._moves if plan not in self._tried), None)
        if plan is not None:
            self._tried.append(plan)
        return plan

    def learn(self, failure: Failure) -> None:
        """Take in how the last plan failed."""
        plan = self._tried[-1]
        self._fruitless += 1
        if self._best is None or failure.progress > self._best[0]:
            self._fruitless = 0
            self._best = failure.progress, plan
            self._moves = self._after(plan, failure)

    def _after(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        yield from _repairs(self._inputs, plan, failure)
        yield from self._other_ranks(plan, failure)
        names = sorted(self._inputs.choices, key=lambda name: name not in failure.text)
        mentioned = [name for name in names if name in failure.text]
        for name in mentioned:
            yield from self._other_choices(plan, name)
        for name in self._inputs.asked_next(plan):
            yield from self._other_choices(plan, name)
        given = self._inputs.given(plan)
        for name in given:
            yield from self._other_choices(plan, name)
        yield replace(plan, guess=Guess(wide=False))
        yield replace(plan, guess=Guess(number=2))
        yield replace(plan, guess=Guess(flag=True))
        yield replace(plan, batch=1)
        yield replace(plan, guess=Guess(number=0))
        for name in names:
            yield from self._other_choices(plan, name)

    def _other_ranks(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        """Yield plans in which an input has as many dimensions as the error asks for."""
        for rank in [int(found[1]) for pattern in _RANKS if (found := pattern.search(failure.text))]:
            for name in self._inputs.given(plan):
                for choice, spec in enumerate(self._inputs.choices[name]):
                    if len(spec.shape) == rank != len(self._inputs.spec(plan, name).shape):
                        yield plan.picking(name, choice)

    def _other_choices(self, plan: Plan, name: str) -> Iterator[Plan]:
        """Yield plans with another choice for one argument; the one it has is another only if it was repaired."""
        for choice in range(len(self._inputs.choices[name])):
            if name in plan.repairs or choice != plan.picks.get(name, 0):
                yield plan.picking(name, choice)


def _repairs(inputs: Inputs, plan: Plan, failure: Failure) -> Iterator[Plan]:
    """Yield plans in which the input that reached the failing layer has the shape this layer wants."""
    if failure.module is None or failure.shape is None:
        return
    made = inputs.make(plan)
    shapes = {name: _shape(made[name]) for name in inputs.given(plan)}
    same = [name for name, shape in shapes.items() if shape and prod(shape) == prod(failure.shape)]
    near = [name for name, shape in shapes.items() if shape and name not in same and _agree(shape, failure.shape)]
    for name in (*same, *near):
        shape = failure.shape if name in same else shapes[name]
        spec = wanted_by(failure.module, shape)
        if spec is not None:
            yield plan.repairing(name, spec)


def _agree(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Tell whether two shapes differ in length only, such as by padding."""
    return len(shape) == len(other) and sum(a != b for a, b in zip(shape, other, strict=True)) <= 1


def _shape(value: Any) -> tuple[int, ...]:
    first = value[0] if isinstance(value, list) else value
    return tuple(getattr(first, "shape", ()))
