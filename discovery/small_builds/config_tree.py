"""Settings as a tree: the sections and fields of a configuration or of a class's arguments, and changes of them."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any

from ...data import read_facts

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """The fields of one configuration; those of a sub-configuration are a section of their own.

    Attributes:
        path: Its path in the settings.
        fields: Values by name.
        is_part: Whether it is a dictionary in a configuration, and so describes the same model.
    """

    path: Path
    fields: dict[str, Any]
    is_part: bool

    def list_fields(self, *meanings: str) -> list[tuple[str, Any]]:
        """Return the names and values of the fields with these meanings, but for empty values."""
        return [(name, value) for name, value in self.fields.items() if meaning_of(name) in meanings and value]


def list_sections(settings: Any) -> list[Section]:
    """Return the sections of settings, the outermost first."""
    return [
        Section(path, _fields(holder), bool(path) and isinstance(holder, dict))
        for path, holder in _list_holders((), settings)
    ]


def replaced(settings: Any, changes: dict[Path, Any]) -> Any:
    """Return a copy of settings with other values at some paths; assignment runs no validation."""
    changed = copy.deepcopy(settings)
    for (*path, name), value in changes.items():
        holder = changed
        for step in path:
            items: Any = holder if isinstance(holder, dict | list | tuple) else vars(holder)
            holder = items[step]
        fields = holder if isinstance(holder, dict) else vars(holder)
        fields[name] = value
    return changed


def each_number(value: Any, change: Callable[[int], int]) -> Any:
    """Return a value with every integer in it changed, in nested lists too."""
    if isinstance(value, list | tuple):
        return type(value)([each_number(item, change) for item in value])
    return change(value) if is_number(value) else value


def list_numbers(value: Any) -> Iterator[int]:
    """Yield the integers of a value."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from list_numbers(item)
    elif is_number(value):
        yield value


def is_number(value: Any) -> bool:
    """Return whether a value is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


@cache
def meaning_of(name: str) -> str:
    """Return the meaning of a field by its name, as in ``data/shrink.toml``; empty if it has none."""
    words: dict[str, list[str]] = read_facts("shrink.toml")["words"]
    matches = (meaning for meaning, patterns in words.items() if any(re.fullmatch(each, name) for each in patterns))
    return next(matches, "")


def _list_holders(path: Path, holder: Any) -> Iterator[tuple[Path, Any]]:
    yield path, holder
    for name, value in _fields(holder).items():
        items = enumerate(value) if isinstance(value, list | tuple) else ()
        inner = [((*path, name), value), *(((*path, name, index), item) for index, item in items)]
        for inner_path, item in inner:
            is_object = is_dataclass(item) or hasattr(item, "to_dict")  # a configuration, of timm or of transformers
            if isinstance(item, dict) or (is_object and not isinstance(item, type) and hasattr(item, "__dict__")):
                yield from _list_holders(inner_path, item)


def _fields(holder: Any) -> dict[str, Any]:
    fields = holder if isinstance(holder, dict) else vars(holder)
    return {name: value for name, value in fields.items() if isinstance(name, str)}
