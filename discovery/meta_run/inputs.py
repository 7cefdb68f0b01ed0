"""Makes inputs for a model's forward: from its signature, its configuration and ``data/inputs.toml``."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..facts.data_files import read_facts
from .fake_constants import Guess
from .input_shapes import Sizes

_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SWITCHES = {"use_cache": False, "return_dict": True, "return_loss": False}
_LARGEST_ON_CPU = 1 << 16


@dataclass(frozen=True, slots=True)
class Spec:
    """One way to make the value of an argument; without a shape the argument is left out.

    Attributes:
        shape: Its dimensions, in expressions.
        values: What it holds, as ``data/inputs.toml`` words it.
        rows: Its very values for each sample, instead of a shape.
        parts: Named tensors of these shapes, as a mapping, instead of one; nameless ones as a tuple.
        constant: The very value, instead of a tensor.
        number: A number of Python, in an expression.
        repeat: A list of so many of it, in an expression.
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
    """Which value every argument gets.

    Attributes:
        picks: The argument's choice, by name; the first where it is not named.
        repairs: Specs that stand for an argument's choices, learnt from a forward that failed.
        batch: Samples.
        guess: What values nobody knows are taken for.
    """

    picks: Mapping[str, int] = field(default_factory=dict)
    repairs: Mapping[str, Spec] = field(default_factory=dict)
    batch: int = 2
    guess: Guess = field(default_factory=Guess)

    def picking(self, name: str, choice: int) -> "Plan":
        """Return this plan with another choice for one argument."""
        rest = {other: spec for other, spec in self.repairs.items() if other != name}
        return replace(self, picks={**self.picks, name: choice}, repairs=rest)

    def repairing(self, name: str, spec: Spec) -> "Plan":
        """Return this plan with a spec for one argument."""
        return replace(self, repairs={**self.repairs, name: spec})


class Inputs:
    """Everything one model's forward can be given.

    Attributes:
        choices: Specs for each argument, in the order to try them.
    """

    def __init__(self, model: nn.Module, around: nn.Module | None = None, method: str = "forward") -> None:
        self._model = model
        self._parameters = _parameters(getattr(model, method))
        self._sizes = Sizes(model, around)
        self._dtype = _dtype(model)
        given: set[str] = set()
        self.choices = {name: self._choices(name, given) for name in self._parameters}
        for name in self._parameters:  # what goes with another input may stand before it
            self.choices[name] = self._choices(name, given)

    def spec(self, plan: Plan, name: str) -> Spec:
        """Return how a plan makes an argument."""
        return plan.repairs.get(name) or self.choices[name][plan.picks.get(name, 0)]

    def given(self, plan: Plan) -> tuple[str, ...]:
        """Return the names of the arguments a plan gives values."""
        return tuple(name for name in self.choices if not self.spec(plan, name).is_absent)

    def asked_next(self, plan: Plan) -> Iterator[str]:
        """Yield the arguments that may be what a failed plan lacked."""
        given = set(self.given(plan))
        for name in self.choices:
            entries = _entries(name)
            if name not in given and any(
                e.get("give") == "asked" and not given.isdisjoint(e["partners"]) for e in entries
            ):
                yield name

    def with_more(self, plan: Plan) -> Iterator[Plan]:
        """Yield plans that give what a forward can do without."""
        for name in read_facts("inputs.toml")["more"]:
            choices = self.choices.get(name, ())
            if name not in self.given(plan):
                yield from (plan.picking(name, n) for n, spec in enumerate(choices) if not spec.is_absent)

    def make(self, plan: Plan) -> dict[str, Any]:
        """Return the values of a plan: small ones on the CPU, which are known, large ones on meta."""
        given = set(self.given(plan))
        marks = _marks(self._sizes, given)
        sizes = self._sizes.with_sizes(batch=plan.batch, tokens=self._sizes.get_size("text") + len(marks))
        made = {name: self._value(self.spec(plan, name), sizes, marks) for name in self.choices if name in given}
        return {**made, **{name: value for name, value in _SWITCHES.items() if name in self._parameters}}

    def _choices(self, name: str, given: set[str]) -> tuple[Spec, ...]:
        parameter = self._parameters[name]
        entries = [entry for entry in _entries(name) if self._holds(entry)]
        specs = [_listed(_spec(entry), parameter) for entry in entries]
        if name in _SWITCHES:
            return (ABSENT,)
        if parameter.default is inspect.Parameter.empty:
            given.add(name)
            return tuple(specs) or _guesses(parameter, self._model)
        if any(self._is_offered(entry, given) for entry in entries):
            given.add(name)
            return (*specs, ABSENT)
        return (ABSENT, *specs)

    def _holds(self, entry: Mapping[str, Any]) -> bool:
        beside, unless = entry.get("beside", ()), entry.get("unless", ())
        fits = not beside or any(name in self._parameters for name in beside)
        if not fits or any(name in self._parameters for name in unless):
            return False
        if not all(self._sizes.find_field([field]) for field in entry.get("enabled", ())):
            return False
        return all(self._sizes.find_field([field]) is not None for field in entry.get("fields", ()))

    def _is_offered(self, entry: Mapping[str, Any], given: set[str]) -> bool:
        give = entry.get("give")
        return give == "always" or (give == "with" and not given.isdisjoint(entry["partners"]))

    def _value(self, spec: Spec, sizes: Sizes, marks: list[tuple[int, int]]) -> Any:
        value = self._single(spec, sizes, marks)
        return [value] * sizes.evaluate(spec.repeat) if spec.repeat else value

    def _single(self, spec: Spec, sizes: Sizes, marks: list[tuple[int, int]]) -> Any:
        if spec.rows:
            rows = [sizes.shape(row) for row in spec.rows]
            return (
                [rows] * sizes.get_size("batch")
                if spec.values == "rows"
                else torch.tensor(rows * sizes.get_size("batch"))
            )
        if spec.parts:
            parts = [(name, self._tensor(shape, spec.values, sizes, marks)) for name, shape in spec.parts]
            return dict(parts) if parts[0][0] else tuple(part for _, part in parts)
        if spec.number:
            return sizes.evaluate(spec.number)
        return self._tensor(spec.shape, spec.values, sizes, marks) if spec.shape else spec.constant

    def _tensor(self, dims: tuple[str, ...], values: str, sizes: Sizes, marks: list[tuple[int, int]]) -> Tensor:
        shape = sizes.shape(dims)
        if values == "float":
            return torch.empty(shape, dtype=self._dtype, device="meta")
        if values == "complex":
            return torch.empty(shape, dtype=torch.complex64, device="meta")
        if prod(shape) > _LARGEST_ON_CPU:
            return torch.ones(shape, dtype=torch.long, device="meta")
        if values in _FILLS:
            return _FILLS[values](shape, marks)
        return torch.full(shape, sizes.evaluate(values))


def as_real(value: Any) -> Any:
    """Return an input with numbers for what is only a shape: from 0 to 1, as of an image, a mask or a box."""
    if isinstance(value, tuple | list):
        return type(value)([as_real(item) for item in value])
    if isinstance(value, dict):
        return {name: as_real(item) for name, item in value.items()}
    if not isinstance(value, Tensor) or not value.is_meta:
        return value
    if value.is_floating_point() or value.is_complex():
        return torch.rand(value.shape, dtype=value.dtype)
    return torch.ones(value.shape, dtype=value.dtype)


def _parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return {}
    return {name: parameter for name, parameter in found.items() if parameter.kind not in _REST}


def _dtype(model: nn.Module) -> torch.dtype:
    floats = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return next((dtype for dtype in floats if dtype.itemsize > 1), torch.get_default_dtype())


@cache
def _entries(name: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(entry for entry in read_facts("inputs.toml")["input"] if name in entry["names"])


def _spec(entry: Mapping[str, Any]) -> Spec:
    rows = tuple(tuple(row) for row in entry.get("rows", ()))
    held = entry.get("parts", {})
    parts = held.items() if isinstance(held, dict) else (("", shape) for shape in held)
    return Spec(
        shape=tuple(entry.get("shape", ())),
        values=entry.get("values", "float"),
        rows=rows,
        parts=tuple((name, tuple(shape)) for name, shape in parts),
        number=entry.get("number", ""),
        repeat=str(entry.get("repeat", "")),
    )


def _listed(spec: Spec, parameter: inspect.Parameter) -> Spec:
    """Return a list of one for an argument that is declared as a list and nothing else."""
    note = str(parameter.annotation).lower().removeprefix("typing.")
    is_list = note.startswith("list[") and "|" not in note
    return replace(spec, repeat="1") if is_list and spec.shape and not spec.repeat else spec


def _guesses(parameter: inspect.Parameter, model: nn.Module) -> tuple[Spec, ...]:
    """Return specs for an argument nothing is known of: what the first layer wants, then what is usual."""
    note = str(parameter.annotation)
    if "bool" in note and "Tensor" not in note:
        return (Spec(constant=False),)
    if "int" in note and "Tensor" not in note:
        return (Spec(constant=[0] if "list[" in note.lower() else 1),)
    if "float" in note and "tensor" not in note.lower():
        return (Spec(constant=[1.0] if "list[" in note.lower() else 1.0),)
    first = next((spec for module in model.modules() if (spec := wanted_by(module))), None)
    usual = (
        Spec(("batch", "tokens", "hidden")),
        Spec(("batch", "channels", "height", "width")),
        Spec(("batch", "tokens"), "ids"),
        Spec(("batch", "hidden")),
        Spec(("batch", "1")),
    )
    return (*((first,) if first else ()), *usual)


def wanted_by(module: nn.Module, shape: tuple[int, ...] = ()) -> Spec | None:
    """Return what a layer takes, with the sizes of ``shape`` that it does not decide; ``None`` if it does not say."""
    kept = tuple(map(str, shape))
    if isinstance(module, nn.Embedding):
        return Spec(("batch", "tokens"), "ids")
    if isinstance(module, nn.Linear) and isinstance(module.in_features, int):
        return Spec((*_rows_of(kept), str(module.in_features)))
    if isinstance(module, nn.LayerNorm):
        return Spec((*_rows_of(kept), *map(str, module.normalized_shape)))
    for kind, spatial in _CONVOLUTIONS.items():
        if isinstance(module, kind):
            held = kept[2:] if len(kept) == len(spatial) + 2 else spatial
            return Spec((*(kept[:1] or ("batch",)), str(module.in_channels), *held))
    return None


def _rows_of(shape: tuple[str, ...]) -> tuple[str, ...]:
    """Return all dimensions but the features; those of an image become patches."""
    return shape[:-1] if 1 < len(shape) < 4 else (*(shape[:1] or ("batch",)), "tokens")  # noqa: PLR2004 - an image has 4


_CONVOLUTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv1d: ("frames",),
    nn.Conv2d: ("height", "width"),
    nn.Conv3d: ("film", "height", "width"),
    nn.ConvTranspose1d: ("frames",),
    nn.ConvTranspose2d: ("height", "width"),
}


def _marks(sizes: Sizes, given: set[str]) -> list[tuple[int, int]]:
    """Return (id, modality) of the placeholders a text needs for the other inputs it is given with."""
    marks: list[tuple[int, int]] = []
    for entry in read_facts("inputs.toml")["placeholder"]:
        token = sizes.find_field(entry["fields"])
        if given.isdisjoint(entry["partners"]) or not isinstance(token, int):
            continue
        first, last = (sizes.find_field([field]) for field in entry["around"] or ("", ""))
        marks += [(first, 0)] if isinstance(first, int) else []
        marks += [(token, entry["modality"])] * sizes.evaluate(entry["count"])
        marks += [(last, 0)] if isinstance(last, int) else []
    return marks


def _ids(shape: tuple[int, ...], marks: list[tuple[int, int]]) -> Tensor:
    del marks
    return torch.arange(prod(shape)).reshape(shape) % 40 + 3


def _tokens(shape: tuple[int, ...], marks: list[tuple[int, int]]) -> Tensor:
    """Return ids with the placeholders among them, and none of these anywhere else."""
    ids, held = _ids(shape, marks), torch.tensor([token for token, _ in marks], dtype=torch.long)
    ids[torch.isin(ids, held)] = next(number for number in range(3, 40) if number not in held)
    ids[..., 2 : 2 + len(marks)] = held
    return ids


def _modalities(shape: tuple[int, ...], marks: list[tuple[int, int]]) -> Tensor:
    kinds = torch.zeros(shape, dtype=torch.long)
    kinds[..., 2 : 2 + len(marks)] = torch.tensor([modality for _, modality in marks], dtype=torch.long)
    return kinds


def _range(shape: tuple[int, ...], marks: list[tuple[int, int]]) -> Tensor:
    del marks
    return torch.arange(shape[-1]).expand(shape).clone()


_FILLS: dict[str, Callable[[tuple[int, ...], list[tuple[int, int]]], Tensor]] = {
    "ids": _ids,
    "tokens": _tokens,
    "modalities": _modalities,
    "range": _range,
    "ones": lambda shape, _: torch.ones(shape, dtype=torch.long),
    "zeros": lambda shape, _: torch.zeros(shape, dtype=torch.long),
    "true": lambda shape, _: torch.ones(shape, dtype=torch.bool),
    "false": lambda shape, _: torch.zeros(shape, dtype=torch.bool),
}
