"""Sizes of inputs, read from a model's configuration by ``data/inputs.toml``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ..facts.data_files import read_facts

_TOKEN = re.compile(r"[*/+-]|\w+")
_OPERATIONS = {
    "*": lambda left, right: left * right,
    "/": lambda left, right: left // right,
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
}
_DEEPEST = 4
_HOLDERS = ("config", "pretrained_cfg", "default_cfg")


class Sizes:
    """The sizes of one model, by name.

    Args:
        model: The model; its configuration and the parts of that are read.
        around: The model it is a part of, whose configuration is read where its own does not say.
    """

    def __init__(self, model: nn.Module, around: nn.Module | None = None) -> None:
        self._parts = (*_configurations(model), *(_configurations(around) if around is not None else ()))
        self._modules = tuple(model.modules())
        self._known: dict[str, int] = {}

    def with_sizes(self, **given: int) -> "Sizes":
        """Return these sizes with some decided otherwise."""
        other = object.__new__(Sizes)
        other._parts, other._modules, other._known = self._parts, self._modules, {**self._known, **given}
        return other

    def find_field(self, fields: Sequence[str], scope: str | None = None) -> Any:
        """Return the first of ``fields`` that a configuration holds, those of ``scope`` first, or ``None``."""
        values = (_field(config, field) for config in self._in_scope(scope) for field in fields)
        return next((value for value in values if value is not None), None)

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
            self._known[name] = self._find(read_facts("inputs.toml")["sizes"][name])
        return self._known[name]

    def _find(self, entry: Mapping[str, Any]) -> int:
        for config in self._in_scope(entry.get("scope")):
            for field in entry.get("fields", ()):
                held = _field(config, field)
                value = _length(held) if entry.get("count") else _number(held, entry.get("at", [0]))
                if value:
                    return value * int(entry.get("times", 1))
        for module in self._modules if entry.get("scope") == "vision" else ():
            for field in entry.get("fields", ()):
                value = _number(module.__dict__.get(field), entry.get("at", [0]))
                if value:
                    return value * int(entry.get("times", 1))
        return self.evaluate(entry["of"]) if "of" in entry else int(entry["default"])

    def _in_scope(self, scope: str | None) -> Iterator[Any]:
        """Yield the configurations, those whose name tells the scope first, then the outer ones first."""
        if scope is not None:
            words = read_facts("inputs.toml")["scopes"][scope]
            yield from (config for name, config in self._parts if any(word in name for word in words))
        yield from (config for _, config in self._parts)


def _configurations(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name, configuration) of a model and of the parts its configuration has, outer ones first."""
    waiting = [(name, held, 0) for name, held in _first_held(model)]
    while waiting:
        name, config, level = waiting.pop(0)
        yield name, config
        if level < _DEEPEST:
            waiting.extend((key, value, level + 1) for key, value in _fields(config) if _is_configuration(value))


def _first_held(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the configurations of a model; a composite that has none has those of the first model in it."""
    for module in model.modules():
        found = [(name, held) for name in _HOLDERS if (held := _held(module, name))]
        if found:
            return found
        if not hasattr(type(model), "config_name"):
            break
    return []


def _held(model: nn.Module, name: str) -> Any:
    """Return a configuration a model holds; its attributes may be properties that raise."""
    try:
        held = getattr(model, name, None)
    except Exception:  # noqa: BLE001 - a user's property may raise anything
        return None
    return held if _is_configuration(held) or isinstance(held, Mapping) or hasattr(held, "input_size") else None


def _is_configuration(value: Any) -> bool:
    return isinstance(getattr(type(value), "model_type", None), str)


def _fields(config: Any) -> list[tuple[str, Any]]:
    return list(config.items()) if isinstance(config, Mapping) else list(getattr(config, "__dict__", {}).items())


def _field(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list | tuple) else None


def _number(value: Any, at: Sequence[int | str]) -> int | None:
    """Return a number of a configuration, or the one at one of these places of a list or mapping."""
    if isinstance(value, Mapping):
        value = next((value[place] for place in at if place in value), None)
    elif isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        places = [place for place in at if isinstance(place, int)]
        place = places[0] if places else 0
        value = value[max(min(place, len(value) - 1), -len(value))]
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
