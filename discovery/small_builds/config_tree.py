"""Settings as a tree: what numbers stand in a configuration or in the arguments of a class, and a copy with others."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """The fields of one configuration: those of a sub-configuration are a section of their own.

    Attributes:
        path: Where it stands in the settings.
        fields: Values by name.
        is_part: Whether it is a dictionary in a configuration, and so tells of the same model.
    """

    path: Path
    fields: dict[str, Any]
    is_part: bool


def list_sections(settings: Any) -> list[Section]:
    """Return the sections of settings, the outermost first."""
    return [
        Section(path, _fields(held), bool(path) and isinstance(held, dict)) for path, held in _holders((), settings)
    ]


def replaced(settings: Any, changes: dict[Path, Any]) -> Any:
    """Return a copy of settings with other values at some paths; validation that runs on assignment is left out."""
    changed = copy.deepcopy(settings)
    for (*path, name), value in changes.items():
        holder = changed
        for step in path:
            holder = _get(holder, step)
        fields = holder if isinstance(holder, dict) else vars(holder)
        fields[name] = value
    return changed


def each_number(value: Any, change: Callable[[int], int]) -> Any:
    """Return a value with every whole number in it changed, lists within lists included."""
    if isinstance(value, list | tuple):
        return type(value)([each_number(item, change) for item in value])
    return change(value) if is_number(value) else value


def list_numbers(value: Any) -> Iterator[int]:
    """Yield the whole numbers of a value."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from list_numbers(item)
    elif is_number(value):
        yield value


def is_number(value: Any) -> bool:
    """Tell whether a value is a whole number; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _holders(path: Path, holder: Any) -> Iterator[tuple[Path, Any]]:
    yield path, holder
    for name, value in _fields(holder).items():
        if _is_holder(value):
            yield from _holders((*path, name), value)
        elif isinstance(value, list | tuple):
            for place, item in enumerate(value):
                if _is_holder(item):
                    yield from _holders((*path, name, place), item)


def _is_holder(value: Any) -> bool:
    is_object = is_dataclass(value) or hasattr(value, "to_dict")  # a configuration, of timm or of transformers
    return isinstance(value, dict) or (is_object and not isinstance(value, type) and hasattr(value, "__dict__"))


def _fields(holder: Any) -> dict[str, Any]:
    fields = holder if isinstance(holder, dict) else vars(holder)
    return {name: value for name, value in fields.items() if isinstance(name, str)}


def _get(holder: Any, step: str | int) -> Any:
    held = holder if isinstance(holder, dict | list | tuple) else vars(holder)
    return held[step]  # type: ignore[index]  # a number where it is a list, a name elsewhere
