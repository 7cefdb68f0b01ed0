"""Shallow settings: fewer layers in every stack, with the per-layer lists that go with them; and fewer experts."""

from typing import Any

from ...errors import ScanFailed
from .settings import Path, Section, each_number, is_number, list_numbers
from .words import meaning_of

FEW_EXPERTS = 4


def shallowed(sections: list[Section], depth: int) -> dict[Path, Any]:
    """Return what to change so that no stack has more than ``depth`` layers.

    Raises:
        ScanFailed: If that would lose a kind of layer that a list tells of, or what marks some of the layers.
    """
    changes = ((section.path, name, value) for section in sections for name, value in _cut(section, depth).items())
    return {(*path, name): value for path, name, value in changes}


def _cut(section: Section, depth: int) -> dict[str, Any]:
    numbers = {name: value for name, value in section.fields.items() if meaning_of(name) == "depth"}
    fewer = {name: each_number(value, lambda number: min(number, depth)) for name, value in numbers.items()}
    cut = {numbers[name] for name in fewer if fewer[name] != numbers[name] and is_number(numbers[name])}
    if cut:
        others = {name: value for name, value in section.fields.items() if name not in numbers}
        fewer |= {name: _follow(name, value, cut, depth) for name, value in others.items()}
    return {name: value for name, value in fewer.items() if value != section.fields[name]}


def _follow(name: str, value: Any, cut: set[int], depth: int) -> Any:
    """Return what a field that tells something of each layer, or of some, is with fewer of them."""
    meaning = meaning_of(name)
    if isinstance(value, list | tuple) and len(value) in cut:
        return _first(name, value, depth)
    if meaning == "layer_number" and is_number(value) and depth <= value < max(cut):
        raise _lost(name, value, depth)
    if meaning == "indices" and isinstance(value, list | tuple) and value and all(map(is_number, value)):
        return _renumbered(name, value, max(cut), depth)
    return value


def _first(name: str, value: Any, depth: int) -> Any:
    """Return what a per-layer list says of the first layers, if every value in it is among them."""
    if {*map(repr, value[:depth])} != {*map(repr, value)}:
        raise _lost(name, value, depth)
    return value[:depth]


def _renumbered(name: str, indices: Any, old: int, depth: int) -> Any:
    """Return indices of layers as far along as they were, if there is a layer for each and for none of them."""
    if min(indices) < 0 or max(indices) > old:
        return indices
    fewer = [depth if index == old else max(0, (index + 1) * depth // old - 1) for index in indices]
    marked = len({*indices})
    if len({*fewer}) < marked or marked == depth < old:
        raise _lost(name, indices, depth)
    return type(indices)(fewer)


def _lost(name: str, value: Any, depth: int) -> ScanFailed:
    return ScanFailed(f"{depth} layers are too few for {name} = {value}; give it more.", field=name, depth=depth)


def fewer_experts(sections: list[Section]) -> dict[Path, Any]:
    """Return what to change so that there are just enough experts for those chosen per token."""
    changes: dict[Path, Any] = {}
    for section in sections:
        by_meaning: dict[str, int] = {}
        for name, value in section.fields.items():
            by_meaning[meaning_of(name)] = max([by_meaning.get(meaning_of(name), 0), *list_numbers(value)])
        least = max(FEW_EXPERTS, by_meaning.get("chosen", 0), 2 * by_meaning.get("expert_groups", 0))
        for name, value in section.fields.items():
            if meaning_of(name) == "experts" and is_number(value) and value > least:
                changes[*section.path, name] = _halved(value, least)
    return changes


def _halved(count: int, least: int) -> int:
    while count % 2 == 0 and count // 2 >= least:
        count //= 2
    return count
