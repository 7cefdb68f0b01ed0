"""Sizes of inputs, read from a model's configuration by ``data/inputs.toml``."""

import copy
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from torch import nn

from ...data import read_facts
from ..facts.model_facts import read_attribute

_TOKEN = re.compile(r"[*/+-]|\w+")
_OPERATIONS = {"*": operator.mul, "/": operator.floordiv, "+": operator.add, "-": operator.sub}
_DEEPEST = 4
_FEW = 32
"""A size below this is a number of frames or patches."""
_HOLDERS = ("config", "pretrained_cfg", "default_cfg")


class Sizes:
    """The sizes of one model, by name.

    Args:
        model: The model; its configuration and the parts of that are read.
        around: The model it is a part of, whose configuration is read where its own lacks a field.

    Attributes:
        are_declared: Whether there is a configuration; else the attributes of the model are read.
    """

    def __init__(self, model: nn.Module, around: nn.Module | None = None) -> None:
        declared = (*_configurations(model), *(_configurations(around) if around is not None else ()))
        self.are_declared = bool(declared)
        self._parts: tuple[tuple[str, Any], ...] = declared or (("", vars(model)),)
        self._modules = tuple(model.modules())
        self._known: dict[str, int] = {}
        self._divisors: Mapping[str, int] = {}

    def divided(self, divisors: Mapping[str, int]) -> "Sizes":
        """Return a copy whose sizes along some axes are divided, as far as ``data/inputs.toml`` lets them."""
        if not divisors:
            return self
        other = copy.copy(self)
        other._divisors, other._known = divisors, {}  # noqa: SLF001 - of its own class
        return other

    def with_sizes(self, **given: int) -> "Sizes":
        """Return a copy with some sizes given."""
        other = copy.copy(self)
        other._known = {**self._known, **given}  # noqa: SLF001 - of its own class
        return other

    def find_field(self, fields: Sequence[str], scope: str | None = None) -> Any:
        """Return the first of ``fields`` in a configuration, those of ``scope`` first, or ``None``."""
        return next((value for value in self._fields(fields, scope) if value is not None), None)

    def shape(self, dims: Sequence[str]) -> tuple[int, ...]:
        """Return a shape written as expressions."""
        return tuple(self.evaluate(dim) for dim in dims)

    def evaluate(self, expression: str) -> int:
        """Return the value of an expression of sizes and numbers, from left to right."""
        first, *rest = _TOKEN.findall(expression)
        result = self._operand(first)
        for operation, operand in zip(rest[::2], rest[1::2], strict=True):
            result = _OPERATIONS[operation](result, self._operand(operand))
        return max(result, 1)

    def _operand(self, word: str) -> int:
        return int(word) if word.isdigit() else self.get_size(word)

    def get_size(self, name: str) -> int:
        """Return a size by its name.

        Raises:
            KeyError: If ``data/inputs.toml`` defines no such size.
        """
        if name not in self._known:
            entry = read_facts("inputs.toml")["sizes"][name]
            size = next(filter(None, self.candidates(entry)), None)
            if size:
                self._known[name] = size * int(entry.get("times", 1))
            else:
                self._known[name] = self.evaluate(entry["of"]) if "of" in entry else int(entry["default"])
            divisor = self._divisors.get(entry.get("axis", ""), 1)
            if divisor > 1:
                self._known[name] = _divide(self._known[name], divisor, entry["least"])
        return self._known[name]

    def candidates(self, entry: Mapping[str, Any]) -> Iterator[int | None]:
        """Yield the values for a size in the configurations, then, of a vision size, in the modules."""
        scope, fields, positions = entry.get("scope"), entry.get("fields", ()), entry.get("at", [0])
        for value in self._fields(fields, scope):
            if entry.get("count"):
                yield len(value) if isinstance(value, list | tuple) else None
            else:
                yield _number(value, positions)
        for module in self._modules if scope == "vision" else ():
            yield from (_number(module.__dict__.get(field), positions) for field in fields)

    def _fields(self, fields: Sequence[str], scope: str | None) -> Iterator[Any]:
        """Yield fields, from configurations whose name contains a word of the scope first, then from the outer ones."""
        words = read_facts("inputs.toml")["scopes"][scope] if scope is not None else ()
        first = (config for name, config in self._parts if any(word in name for word in words))
        for config in chain(first, (config for _, config in self._parts)):
            for field in fields:
                # transformers raises a RuntimeError for a field whose value differs between the layers.
                with suppress(RuntimeError):
                    yield config.get(field) if isinstance(config, Mapping) else getattr(config, field, None)


def _configurations(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name, configuration) of a model and of the parts its configuration has, outer ones first."""
    waiting = [(name, config, 0) for name, config in first_configurations(model)]
    while waiting:
        name, config, level = waiting.pop(0)
        yield name, config
        if level < _DEEPEST:
            fields = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
            waiting.extend((key, value, level + 1) for key, value in fields.items() if _is_configuration(value))


def first_configurations(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the configurations of a model; of a composite without any, those of the first model in it."""
    for module in model.modules():
        values = ((name, read_attribute(module, name)) for name in _HOLDERS)
        found = [
            (name, value)
            for name, value in values
            if _is_configuration(value) or isinstance(value, Mapping) or hasattr(value, "input_size")
        ]
        if found or not hasattr(type(model), "config_name"):
            return found
    return []


def _is_configuration(value: Any) -> bool:
    return isinstance(getattr(type(value), "model_type", None), str)


def _divide(size: int, divisor: int, least: int) -> int:
    """Return a smaller size: a multiple of eight, or one more than a multiple where a first frame stands alone."""
    first = size % 2 if size < _FEW else 0
    smaller = (size - first) // divisor + first
    return min(size, max(least, smaller if smaller < _FEW else smaller // 8 * 8))


def _number(value: Any, positions: Sequence[int | str]) -> int | None:
    """Return a number of a configuration, or the one at one of these positions of a list or mapping."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in positions if key in value), None)
    elif isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        index = next((position for position in positions if isinstance(position, int)), 0)
        value = value[max(min(index, len(value) - 1), -len(value))]
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
