"""Search for inputs a forward runs with: the likeliest first, then the plans that the last failure suggests."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from math import prod
from typing import Any

from torch import nn

from .inputs import Inputs, Plan, Spec, input_spec
from .tensor_values import FakeConstants

_RANKS = (
    re.compile(r"values to unpack \(expected (\d+)"),
    re.compile(r"is not equal to len\(dims\) = (\d+)"),
    re.compile(r"or (\d+)D \(batched\) input to conv"),
    re.compile(r"Expected (\d+)-?D tensor"),
    re.compile(r"but got (\d+)-D for tensor"),
)
_MISMATCH = ("must match", "shape", "doesn't match", "size")
"""Words of errors about sizes that do not agree."""
_TWO_SIZES = (
    re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)"),
    re.compile(r"of length (\d+) at (-\d+)! .* broadcastable to \[([\d, ]+)\]"),
    re.compile(r"cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)"),
)
"""Errors of two sizes that do not agree; the second has one of them and a shape that holds the other."""
_FIXED = ("batch", "channels", "hidden", "film")
"""Sizes that a table of positions, or a layer on all positions, decides not at all, or rarely."""
_LONGEST = 1 << 20
"""Positions of the largest input that is tried for a model that states no size: of an image, pixels."""
_OTHER_SIZES: dict[tuple[str, ...], tuple[int, ...]] = {
    ("film",): (16, 4, 32),
    ("height", "width"): (32, 256, 64, 384, 112, 28),
}
"""Sizes tried where a model states none, by their names; images are square."""
NAMES_ONLY = "TypeError: The forward returned names instead of tensors."
"""The failure of a forward that unpacks the result of an inner model, whose fields it takes for their values."""
_MIXED = 3
"""Dimensions of an input whose tokens a layer mixes."""
_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
PATIENCE = 10
"""Plans in a row that may get no further than the best; twice as many for a model without a configuration."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a forward.

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
    """Propose plans; after each failure continue from the plan that got furthest."""

    def __init__(self, inputs: Inputs, first: Plan) -> None:
        self._inputs = inputs
        self._tried: list[Plan] = []
        self._fruitless = 0
        self._best: tuple[int, Plan] | None = None
        self._moves: Iterator[Plan] = iter([first])

    def next_plan(self) -> Plan | None:
        """Return a plan not tried yet, or ``None`` if nothing is left to try."""
        if self._fruitless >= (PATIENCE if self._inputs.are_declared else 2 * PATIENCE):
            return None
        plan = next((plan for plan in self._moves if plan not in self._tried), None)
        if plan is not None:
            self._tried.append(plan)
        return plan

    def learn(self, failure: Failure) -> None:
        """Take the failure of the last plan into account."""
        plan = self._tried[-1]
        self._fruitless += 1
        if self._best is None or failure.progress > self._best[0]:
            self._fruitless = 0
            self._best = failure.progress, plan
            self._moves = self.variations(plan, failure)

    def variations(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        """Yield variations of a failed plan, those first that the failure suggests."""
        if failure.text == NAMES_ONLY:
            yield replace(plan, is_plain=True)
        yield from self.with_convolved_rank(plan, failure)
        yield from self.with_expected_shape(plan, failure)
        yield from self.with_expected_size(plan, failure)
        yield from self.with_agreeing_size(plan, failure)
        yield from self.with_single_rows(plan)
        for rank in [int(found[1]) for pattern in _RANKS if (found := pattern.search(failure.text))]:
            yield from self.with_rank(plan, rank, self._inputs.given(plan))
        names = sorted(self._inputs.choices, key=lambda name: name not in failure.text)
        mentioned = [name for name in names if name in failure.text]
        lacking = (*self._inputs.on_demand(plan), *(self._inputs.left_out(plan) if "NoneType" in failure.text else ()))
        asked = dict.fromkeys((*mentioned, *lacking, *self._inputs.given(plan)))
        choices = [self._other_choices(plan, name) for name in asked]
        if self._inputs.are_declared:
            yield from chain(*choices)
        else:  # none is likelier than the others
            sizes = self.with_other_sizes(plan) if any(word in failure.text.lower() for word in _MISMATCH) else ()
            rounds = zip_longest(sizes, *choices)
            yield from (choice for each in rounds for choice in each if choice is not None)
        yield replace(plan, constants=FakeConstants(wide=False))
        yield replace(plan, constants=FakeConstants(number=2))
        yield replace(plan, constants=FakeConstants(flag=True))
        yield replace(plan, batch=1)
        yield replace(plan, constants=FakeConstants(number=0))
        for name in names:
            yield from self._other_choices(plan, name)

    def with_expected_shape(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        """Yield plans in which the input that reached the failing layer has the shape this layer takes.

        That is an input of as many elements as the layer's, or one whose shape differs in one length, such as by
        padding.
        """
        if failure.module is None or failure.shape is None:
            return
        made = self._inputs.make(plan)
        shapes = {name: shape for name in self._inputs.given(plan) if (shape := _shape(made[name]))}
        same = [name for name, shape in shapes.items() if prod(shape) == prod(failure.shape)]
        near = [name for name, shape in shapes.items() if name not in same and _is_near(shape, failure.shape)]
        for name in (*same, *near):
            spec = input_spec(failure.module, failure.shape if name in same else shapes[name])
            if spec is not None:
                yield plan.repairing(name, _with_expressions(spec, self._inputs.spec(plan, name), shapes[name]))

    def with_expected_size(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        """Yield plans in which a size of the inputs is the one that the failing layer takes: it mixes a fixed number.

        That is the number of tokens in a mixer of tokens, or of time steps in a forecast.
        """
        module, shape = failure.module, failure.shape
        if not isinstance(module, nn.Linear | nn.Conv1d) or not shape or len(shape) < _MIXED:
            return
        mixed = shape[-1] if isinstance(module, nn.Linear) else shape[1]
        taken: Any = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        made = self._inputs.make(plan)
        dims = ((self._inputs.spec(plan, name).shape, _shape(made[name])) for name in self._inputs.given(plan))
        sizes = (name for pair in dims for name, size in zip(*pair, strict=False) if size == mixed != taken)
        for name in dict.fromkeys(sizes):
            if name.isidentifier() and plan.sizes.get(name) != taken:
                yield replace(plan, sizes={**plan.sizes, name: taken})

    def with_agreeing_size(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        """Yield plans in which a size is larger, or smaller, as one of two sizes that do not agree is than the other.

        A table of positions, and a layer that reads all positions at once, hold for one number of patches or steps. A
        configuration states the sizes.
        """
        pair = _find_two_sizes(failure.text)
        if pair is None or self._inputs.are_declared:
            return
        made = self._inputs.make(plan)
        sizes = [
            {dim: size for dim, size in zip(dims, _shape(made[name]), strict=False) if dim not in _FIXED}
            for name in self._inputs.given(plan)
            if (dims := self._inputs.spec(plan, name).shape)
        ]
        for have, want in (pair, pair[::-1]):
            for now in sizes:
                yield from _resize(plan, {dim: size for dim, size in now.items() if dim.isidentifier()}, have, want)

    def with_single_rows(self, plan: Plan) -> Iterator[Plan]:
        """Yield the plan with one vector for each sample, where each position had one: of a table, a condition."""
        specs = {} if self._inputs.are_declared else {x: self._inputs.spec(plan, x) for x in self._inputs.given(plan)}
        rows = {x: replace(spec, shape=spec.shape[::2]) for x, spec in specs.items() if _has_positions(spec)}
        if rows:
            yield replace(plan, repairs={**plan.repairs, **rows})

    def with_convolved_rank(self, plan: Plan, failure: Failure) -> Iterator[Plan]:
        """Yield plans in which the input that reached a failing convolution has as many dimensions as that takes."""
        spec = input_spec(failure.module) if failure.module is not None else None
        if spec is None or failure.shape is None or not isinstance(failure.module, _CONVOLUTION):
            return
        if len(spec.shape) != len(failure.shape):
            made = self._inputs.make(plan)
            names = (name for name in self._inputs.given(plan) if _shape(made[name]) == failure.shape)
            yield from self.with_rank(plan, len(spec.shape), names)

    def with_rank(self, plan: Plan, rank: int, names: Iterable[str]) -> Iterator[Plan]:
        """Yield plans in which one of these inputs has another choice, with so many dimensions."""
        for name in names:
            for choice, spec in enumerate(self._inputs.choices[name]):
                if len(spec.shape) == rank != len(self._inputs.spec(plan, name).shape):
                    yield plan.picking(name, choice)

    def with_other_sizes(self, plan: Plan) -> Iterator[Plan]:
        """Yield plans with other usual numbers of frames, and sides of images: a model may be made for one alone."""
        used = {dim for name in self._inputs.given(plan) for dim in self._inputs.spec(plan, name).shape}
        for names, sizes in _OTHER_SIZES.items():
            if not used.isdisjoint(names) and plan.sizes.keys().isdisjoint(names):
                yield from (replace(plan, sizes={**plan.sizes, **dict.fromkeys(names, size)}) for size in sizes)

    def _other_choices(self, plan: Plan, name: str) -> Iterator[Plan]:
        """Yield plans with another choice for one argument; after a repair its former choice is another one too."""
        for choice in range(len(self._inputs.choices[name])):
            if name in plan.repairs or choice != plan.picks.get(name, 0):
                yield plan.picking(name, choice)


def _has_positions(spec: Spec) -> bool:
    """Return whether a spec is of features for each position."""
    return len(spec.shape) == _MIXED and spec.shape[1] == "tokens" and spec.values == "float"


def _find_two_sizes(text: str) -> tuple[int, int] | None:
    """Return the two sizes that an error says do not agree, or ``None``."""
    found = next((match for pattern in _TWO_SIZES if (match := pattern.search(text))), None)
    if found is None:
        return None
    one, other, *shape = (int(number) for group in found.groups() for number in group.split(", "))
    return (shape[other], one) if shape else (one, other)


def _resize(plan: Plan, now: Mapping[str, int], have: int, want: int) -> Iterator[Plan]:
    """Yield plans with other sizes: by the ratio, without and with one more token (a class), and by the difference.

    Of an image the number of positions is the product of both sides.
    """
    scaled = [
        {name: round(size * ((want - more) / (have - more)) ** (1 / len(now))) for name, size in now.items()}
        for more in (0, 1)
        if have > more and want > more
    ]
    shifted = [{name: size + want - have for name, size in now.items()}] if len(now) == 1 else []
    for sizes in (*scaled, *shifted):
        if sizes and all(0 < size <= _LONGEST ** (1 / len(now)) for size in sizes.values()):
            yield replace(plan, sizes={**plan.sizes, **sizes})


def _with_expressions(spec: Spec, old: Spec, shape: tuple[int, ...]) -> Spec:
    """Return a spec whose sizes that did not change are expressions again, so that they can become smaller."""
    sizes = zip(spec.shape, old.shape, shape, strict=False)
    kept = [text if size == str(number) else size for size, text, number in sizes]
    if not len(spec.shape) == len(old.shape) == len(shape):
        kept = kept[:1]
    return replace(spec, shape=(*kept, *spec.shape[len(kept) :]), repeat=old.repeat)


def _shape(value: Any) -> tuple[int, ...]:
    first = value[0] if isinstance(value, list) else value
    return tuple(getattr(first, "shape", ()))


def _is_near(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(shape) == len(other) and sum(a != b for a, b in zip(shape, other, strict=True)) <= 1
