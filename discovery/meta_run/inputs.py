"""Make inputs for a model's forward: from its signature, its configuration and ``data/inputs.toml``."""

import copy
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ...data import read_facts
from .input_shapes import Sizes
from .tensor_values import FakeConstants

_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SWITCHES = {"use_cache": False, "return_dict": True, "return_loss": False}
_LARGEST_ON_CPU = 1 << 16
_MOST_FIRST = 4
"""Inputs of first layers that are tried."""
Placeholder = tuple[int, int]
"""(token id, modality)."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One way to make the value of an argument; without a shape the argument is left out.

    Attributes:
        shape: Its dimensions, in expressions.
        values: Its elements, in the words of ``data/inputs.toml``.
        rows: Its very values for each sample, instead of a shape.
        parts: Named tensors of these shapes, as a mapping, instead of one; nameless ones as a tuple.
        constant: The very value, instead of a tensor.
        number: A number of Python, in an expression.
        repeat: Length of a list of it, in an expression.
    """

    shape: tuple[str, ...] = ()
    values: str = "float"
    rows: tuple[tuple[str, ...], ...] = ()
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    constant: Any = None
    number: str = ""
    repeat: str = ""

    @property
    def is_absent(self) -> bool:
        """Whether the argument is not given."""
        is_made = self.shape or self.rows or self.parts or self.number or self.constant is not None
        return not is_made and self.values != "none"


ABSENT = Spec()


@dataclass(frozen=True)
class Plan:
    """The choice of a value for every argument.

    Attributes:
        picks: The argument's choice, by name; the first where it is not named.
        repairs: Specs that replace an argument's choices, derived from a forward that failed.
        batch: Samples.
        constants: Fake values for unknown ones.
        divisors: By which the sizes along an axis are divided.
        sizes: Sizes by name, instead of those read from the model.
        is_plain: Whether results are asked for as tuples, not by the names of their fields.
    """

    picks: Mapping[str, int] = field(default_factory=dict)
    repairs: Mapping[str, Spec] = field(default_factory=dict)
    batch: int = 2
    constants: FakeConstants = field(default_factory=FakeConstants)
    divisors: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    is_plain: bool = False

    def picking(self, name: str, choice: int) -> "Plan":
        """Return this plan with another choice for one argument."""
        rest = {other: spec for other, spec in self.repairs.items() if other != name}
        return replace(self, picks={**self.picks, name: choice}, repairs=rest)

    def repairing(self, name: str, spec: Spec) -> "Plan":
        """Return this plan with a spec for one argument."""
        return replace(self, repairs={**self.repairs, name: spec})


class Inputs:
    """The possible inputs of one model's forward.

    Attributes:
        choices: Specs for each argument, in the order to try them.
    """

    def __init__(self, model: nn.Module, around: nn.Module | None = None, method: str = "forward") -> None:
        self._model = model
        parameters: Iterable[inspect.Parameter] = ()
        with suppress(TypeError, ValueError):  # a forward made outside Python shows none
            parameters = inspect.signature(getattr(model, method)).parameters.values()
        self._parameters = {parameter.name: parameter for parameter in parameters if parameter.kind not in _REST}
        self._sizes = Sizes(model, around)
        floats = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
        self._dtype = next((dtype for dtype in floats if dtype.itemsize > 1), torch.get_default_dtype())
        given: set[str] = set()
        self.choices = {name: self._choices(name, given) for name in self._parameters}
        for name in self._parameters:  # the partner of an input may be listed before it
            self.choices[name] = self._choices(name, given)

    @property
    def are_declared(self) -> bool:
        """Whether a configuration states their sizes."""
        return self._sizes.are_declared

    def find_field(self, fields: Sequence[str]) -> Any:
        """Return the first of ``fields`` that a configuration holds, or ``None``."""
        return self._sizes.find_field(fields)

    def takes(self, name: str) -> bool:
        """Return whether the forward has an argument of this name."""
        return name in self._parameters

    def spec(self, plan: Plan, name: str) -> Spec:
        """Return a plan's spec for an argument."""
        return plan.repairs.get(name) or self.choices[name][plan.picks.get(name, 0)]

    def given(self, plan: Plan) -> tuple[str, ...]:
        """Return the names of the arguments with a value in a plan."""
        return tuple(name for name in self.choices if not self.spec(plan, name).is_absent)

    def on_demand(self, plan: Plan) -> Iterator[str]:
        """Yield the arguments that a failed plan may have lacked."""
        given = set(self.given(plan))
        for name in (name for name in self.choices if name not in given):
            if any(e.get("give") == "on_demand" and not given.isdisjoint(e["partners"]) for e in _entries(name)):
                yield name

    def left_out(self, plan: Plan) -> Iterator[str]:
        """Yield the arguments without a value in a plan that could have one."""
        given = set(self.given(plan))
        yield from (name for name, specs in self.choices.items() if name not in given and specs != (ABSENT,))

    def with_more(self, plan: Plan, unreached: Collection[str]) -> Iterator[Plan]:
        """Yield plans with one more input that a forward can do without.

        That is one of ``data/inputs.toml``, or one whose name begins as those of modules that were not reached do.
        """
        begun = {part.partition("_")[0] for path in unreached for part in path.split(".")}
        left_out = [*self.left_out(plan)]
        usual = [name for name in read_facts("inputs.toml")["more"] if name in left_out]
        alike = [name for name in left_out if name.partition("_")[0] in begun]
        for name in dict.fromkeys((*usual, *alike)):
            yield from (plan.picking(name, n) for n, spec in enumerate(self.choices[name]) if not spec.is_absent)

    def make(self, plan: Plan) -> dict[str, Any]:
        """Return the values of a plan: small ones on the CPU, which are known, large ones on meta."""
        given = set(self.given(plan))
        marks = list_placeholders(self._sizes, given)
        room = 2 + len(marks)  # all placeholders stay, however short a text is asked for
        tokens = max(plan.sizes.get("tokens", self._sizes.get_size("text") + len(marks)), room)
        sizes = self._sizes.divided(plan.divisors) if plan.divisors or plan.sizes else self._sizes
        sizes = sizes.with_sizes(**{"batch": plan.batch, **plan.sizes, "tokens": tokens})
        made = {name: self.value(self.spec(plan, name), sizes, marks) for name in self.choices if name in given}
        switches = {**_SWITCHES, "return_dict": not plan.is_plain}
        return {**made, **{name: value for name, value in switches.items() if name in self._parameters}}

    def _choices(self, name: str, given: set[str]) -> tuple[Spec, ...]:
        """Return the specs of an argument, and add it to ``given`` if the first one gives it a value."""
        if name in _SWITCHES:
            return (ABSENT,)
        parameter = self._parameters[name]
        entries = [entry for entry in _entries(name) if self.applies(entry)]
        specs = [_spec(entry, parameter) for entry in entries]
        if parameter.default is inspect.Parameter.empty:
            given.add(name)
            if specs and self._sizes.are_declared:
                return tuple(specs)
            position = 0 if self._sizes.are_declared else [*self._parameters].index(name)
            return (*specs, *specs_for_unknown(parameter, self._model, position))
        for entry in entries:
            give = entry.get("give")
            if give == "always" or (give == "with" and not given.isdisjoint(entry["partners"])):
                given.add(name)
                return (*specs, ABSENT)
        return (ABSENT, *specs)

    def applies(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry applies to this model: its conditions on arguments and configuration hold."""
        find, names = self._sizes.find_field, self._parameters.keys()
        return (
            not (entry.get("undeclared") and self._sizes.are_declared)
            and ("beside" not in entry or not names.isdisjoint(entry["beside"]))
            and names.isdisjoint(entry.get("unless", ()))
            and all(find([field]) for field in entry.get("enabled", ()))
            and all(find([field]) is not None for field in entry.get("fields", ()))
        )

    def value(self, spec: Spec, sizes: Sizes, marks: list[Placeholder]) -> Any:
        """Return the value a spec describes."""
        value = copy.copy(spec.constant)
        if spec.rows:
            rows, batch = list(map(sizes.shape, spec.rows)), sizes.get_size("batch")
            value = [rows] * batch if spec.values == "rows" else torch.tensor(rows * batch)
        elif spec.parts:
            parts = [(name, self._tensor(shape, spec.values, sizes, marks)) for name, shape in spec.parts]
            value = dict(parts) if parts[0][0] else tuple(part for _, part in parts)
        elif spec.number:
            value = sizes.evaluate(spec.number)
        elif spec.shape:
            value = self._tensor(spec.shape, spec.values, sizes, marks)
        return [value] * sizes.evaluate(spec.repeat) if spec.repeat else value

    def _tensor(self, dims: tuple[str, ...], values: str, sizes: Sizes, marks: list[Placeholder]) -> Tensor:
        shape = sizes.shape(dims)
        if values == "float":
            return torch.empty(shape, dtype=self._dtype, device="meta")
        if values == "complex":
            return torch.empty(shape, dtype=torch.complex64, device="meta")
        if prod(shape) > _LARGEST_ON_CPU:
            return torch.ones(shape, dtype=torch.long, device="meta")
        if values in _FILLS:
            return _FILLS[values](shape, marks)
        if values.startswith(("from ", "after ")):
            word, _, expression = values.partition(" ")
            places, start = torch.arange(shape[-1]).expand(shape).clone(), sizes.evaluate(expression)
            return places + start if word == "from" else places >= start
        return torch.full(shape, sizes.evaluate(values))


def as_real(value: Tensor) -> Tensor:
    """Return numbers for a tensor on meta: from 0 to 1, as of an image, a mask or a box."""
    if not value.is_meta:
        return value
    make = torch.rand if value.is_floating_point() or value.is_complex() else torch.ones
    return make(value.shape, dtype=value.dtype)


def as_floats(value: Tensor) -> Tensor:
    """Return numbers for a tensor, also those of a single index for each sample, such as a time, as floats."""
    real = as_real(value)
    return real.float() if real.ndim <= 1 and real.dtype is torch.long else real


def as_small(value: Tensor) -> Tensor:
    """Return a tensor on the CPU: floats in half precision, zeros for one on meta."""
    numbers = torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value
    return numbers.to(torch.bfloat16) if numbers.is_floating_point() else numbers


# --- specs ------------------------------------------------------------------------------------------------------------


@cache
def _entries(name: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(entry for entry in read_facts("inputs.toml")["input"] if name in entry["names"])


def _spec(entry: Mapping[str, Any], parameter: inspect.Parameter) -> Spec:
    """Return the spec of an entry; a list of one for an argument that is declared as a list and nothing else."""
    note = str(parameter.annotation).lower().removeprefix("typing.")
    is_list = note.startswith("list[") and "|" not in note and bool(entry.get("shape"))
    parts = entry.get("parts", {})
    named = parts.items() if isinstance(parts, dict) else (("", shape) for shape in parts)
    return Spec(
        shape=tuple(entry.get("shape", ())),
        values=entry.get("values", "float"),
        rows=tuple(tuple(row) for row in entry.get("rows", ())),
        parts=tuple((name, tuple(shape)) for name, shape in named),
        number=entry.get("number", ""),
        constant=entry.get("value"),
        repeat=str(entry.get("repeat", "")) or ("1" if is_list else ""),
    )


def specs_for_unknown(parameter: inspect.Parameter, model: nn.Module, position: int = 0) -> tuple[Spec, ...]:
    """Return specs for an argument without an entry: the inputs of first layers, then usual shapes.

    Of a model that nothing is known of, the first argument is likely the input of the first layer; one at a later
    position that of another child, or one number for each sample.
    """
    note = str(parameter.annotation)
    if "bool" in note and "Tensor" not in note:
        return (Spec(constant=False),)
    if "int" in note and "Tensor" not in note:
        return (Spec(constant=[0] if "list[" in note.lower() else 1),)
    if "float" in note and "tensor" not in note.lower():
        return (Spec(constant=[1.0] if "list[" in note.lower() else 1.0),)
    first = list_first_inputs(model)
    usual = (
        Spec(("batch", "tokens", "hidden")),
        Spec(("batch", "channels", "height", "width")),
        Spec(("batch", "tokens"), "ids"),
        Spec(("batch", "hidden")),
        Spec(("batch", "1")),
        Spec(("batch", "speakers", "recording")),
    )
    single = (Spec(("batch",)), Spec(("batch",), "ones"), Spec(("batch",), "tokens"))  # a time, an index, a length
    if not position or not first:
        return (*first[:1], *usual, *first[1:], *single)
    return (*first[position:][:1], *single, *(spec for spec in first if spec not in first[position:][:1]), *usual)


def list_first_inputs(model: nn.Module) -> tuple[Spec, ...]:
    """Return the inputs of the first layer of the model, and of each of its children, without repetitions."""
    parts = (model, *model.children())
    found = (next((spec for module in part.modules() if (spec := input_spec(module))), None) for part in parts)
    return tuple(dict.fromkeys(spec for spec in found if spec))[:_MOST_FIRST]


def input_spec(module: nn.Module, shape: tuple[int, ...] = ()) -> Spec | None:
    """Return the input a layer takes, or ``None`` if that is unknown; ``shape`` gives the sizes it does not decide."""
    kept = tuple(map(str, shape))
    if isinstance(module, nn.Embedding):
        return Spec(("batch", "tokens"), "ids")
    if isinstance(module, nn.Linear) and isinstance(module.in_features, int):
        return Spec((*_without_features(kept), str(module.in_features)))
    if isinstance(module, nn.LayerNorm):
        return Spec((*_without_features(kept), *map(str, module.normalized_shape)))
    for kind, spatial in _CONVOLUTIONS.items():
        if isinstance(module, kind):
            sizes = kept[2:] if len(kept) == len(spatial) + 2 else spatial
            return Spec((*(kept[:1] or ("batch",)), str(module.in_channels), *sizes))
    return None


def _without_features(shape: tuple[str, ...]) -> tuple[str, ...]:
    """Return all dimensions but the features; those of an image become patches."""
    return shape[:-1] if 1 < len(shape) < 4 else (*(shape[:1] or ("batch",)), "tokens")  # noqa: PLR2004 - an image has 4


_CONVOLUTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv1d: ("frames",),
    nn.Conv2d: ("height", "width"),
    nn.Conv3d: ("film", "height", "width"),
    nn.ConvTranspose1d: ("frames",),
    nn.ConvTranspose2d: ("height", "width"),
}


# --- elements ---------------------------------------------------------------------------------------------------------


def list_placeholders(sizes: Sizes, given: set[str]) -> list[Placeholder]:
    """Return the placeholders a text needs for the other inputs given with it."""
    marks: list[Placeholder] = []
    for entry in read_facts("inputs.toml")["placeholder"]:
        token = sizes.find_field(entry["fields"])
        if given.isdisjoint(entry["partners"]) or not isinstance(token, int):
            continue
        first, last = (sizes.find_field([field]) for field in entry["around"] or ("", ""))
        marks += [(first, 0)] if isinstance(first, int) else []
        marks += [(token, entry["modality"])] * sizes.evaluate(entry["count"])
        marks += [(last, 0)] if isinstance(last, int) else []
    return marks


def _ids(shape: tuple[int, ...], _marks: list[Placeholder]) -> Tensor:
    return torch.arange(prod(shape)).reshape(shape) % 40 + 3


def _tokens(shape: tuple[int, ...], marks: list[Placeholder]) -> Tensor:
    """Return ids with the placeholders among them, as far as there is room, and none of these anywhere else."""
    ids, placeholders = _ids(shape, marks), torch.tensor([token for token, _ in marks], dtype=torch.long)
    ids[torch.isin(ids, placeholders)] = next(number for number in range(3, 40) if number not in placeholders)
    ids[..., 2 : 2 + len(marks)] = placeholders[: max(shape[-1] - 2, 0)]
    return ids


def _modalities(shape: tuple[int, ...], marks: list[Placeholder]) -> Tensor:
    kinds = torch.zeros(shape, dtype=torch.long)
    modalities = torch.tensor([modality for _, modality in marks], dtype=torch.long)
    kinds[..., 2 : 2 + len(marks)] = modalities[: max(shape[-1] - 2, 0)]
    return kinds


_FILLS: dict[str, Callable[[tuple[int, ...], list[Placeholder]], Tensor]] = {
    "ids": _ids,
    "tokens": _tokens,
    "modalities": _modalities,
    "range": lambda shape, _: torch.arange(shape[-1]).expand(shape).clone(),
    "ones": lambda shape, _: torch.ones(shape, dtype=torch.long),
    "zeros": lambda shape, _: torch.zeros(shape, dtype=torch.long),
    "true": lambda shape, _: torch.ones(shape, dtype=torch.bool),
    "false": lambda shape, _: torch.zeros(shape, dtype=torch.bool),
}
