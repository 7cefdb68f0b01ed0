"""The layers of a slot one by one, as text: the indices in their paths, and the parameters that an adapter adds.

``0-31:8192`` stands for 32 layers, on each of which every rank of LoRA adds 8,192 parameters. Nested stacks have one
range for each index (``0.0-2:1024 1.0-3:2048``). ``*4`` behind a size is the number of groups, which divides the rank;
``+64`` the parameters trained at any rank; a layer without a size takes no adapter.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from ..layers import Layer, Slot
from ..patterns import OPEN, find_indices
from ..presets import ADAPTABLE_KINDS
from ..selection import size_per_rank
from ..vocabulary import RANK
from .query import join_indices

NO_FIT = "no adapter fits it"
_ITEM = re.compile(r"(?P<indices>[\d.,-]*)(?::(?P<size>\d+)(?:\*(?P<groups>\d+))?(?:\+(?P<fixed>\d+))?)?")
Indices = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """The parameters of an adapter on one layer.

    Attributes:
        per_rank: Parameters that each rank adds.
        groups: The rank is a multiple of it.
        fixed: Parameters trained at any rank.
    """

    per_rank: int
    groups: int = 1
    fixed: int = 0

    def __str__(self) -> str:
        """Return the text of a size, behind the indices."""
        groups = f"*{self.groups}" if self.groups > 1 else ""
        return f":{self.per_rank}{groups}{f'+{self.fixed}' if self.fixed else ''}"


def size_of(layer: Layer, gains: int = 0) -> Size | None:
    """Return the size of an adapter on a layer; ``None`` if none fits.

    Args:
        layer: The layer.
        gains: The values per channel that it trains beside weight and bias.
    """
    if layer.kind not in ADAPTABLE_KINDS or layer.misfit is not None or RANK % layer.groups:
        return None
    return Size(size_per_rank(layer) + gains, layer.groups, gains * (layer.out_features or 0))


def write_members(layers: Iterable[Layer], gains: Mapping[str, int]) -> str:
    """Return the text of the layers of one slot.

    Args:
        layers: The layers.
        gains: The values per channel that each trains beside weight and bias, by path.
    """
    alike: defaultdict[Size | None, set[Indices]] = defaultdict(set)
    for layer in layers:
        alike[size_of(layer, gains.get(layer.path, 0))].add(find_indices(layer.path))
    return " ".join(f"{'.'.join(ranges)}{size or ''}" for size, members in alike.items() for ranges in _factor(members))


def _factor(members: Iterable[Indices]) -> Iterator[tuple[str, ...]]:
    """Yield the ranges of indices whose products are the members."""
    inside: defaultdict[int, set[Indices]] = defaultdict(set)
    for indices in members:
        if not indices:
            yield ()
            return
        inside[indices[0]].add(indices[1:])
    alike: defaultdict[frozenset[Indices], list[int]] = defaultdict(list)
    for index, rest in inside.items():
        alike[frozenset(rest)].append(index)
    for rests, firsts in alike.items():
        for ranges in _factor(rests):
            yield (join_indices(firsts), *ranges)


def read_members(slot: Slot) -> dict[Indices, Size | None]:
    """Return the size of each layer of a slot, by the indices in its path; empty if they are not on record."""
    found: dict[Indices, Size | None] = {}
    for item in slot.members.split(" ") if slot.members is not None else ():
        parts = _ITEM.fullmatch(item)
        if parts is None:
            message = f"members {item!r} of slot {slot.pattern!r} cannot be read"
            raise ValueError(message)
        size = parts["size"] and Size(int(parts["size"]), int(parts["groups"] or 1), int(parts["fixed"] or 0))
        ranges = [[*_list_range(text)] for text in parts["indices"].split(".")] if parts["indices"] else []
        found.update(dict.fromkeys(product(*ranges), size or None))
    return found


def _list_range(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def spread_evenly(slot: Slot) -> str | None:
    """Return the text of the members that follow from a slot's count and size: all alike, in every block of a stack.

    ``None`` if they do not follow: nested stacks, or a size that is no multiple of the count.
    """
    depth, size = slot.pattern.split(".").count(OPEN), slot.per_rank
    if depth > 1 or (not depth and slot.count > 1) or (size and size % slot.count):
        return None
    indices = join_indices(range(slot.count)) if depth else ""
    return f"{indices}:{size // slot.count}" if size else indices


def list_members(slot: Slot) -> Iterator[tuple[Layer, Size | None]]:
    """Yield the layers of a slot with their sizes, in the order of their indices; none if they are not on record."""
    facts = Layer(slot.pattern, slot.kind, "", (), role=slot.role, tower=slot.tower)
    facts = replace(facts, live=slot.live, bypassed=slot.bypassed, kernel=slot.kernel, blocks=slot.blocks)
    for path, size in _list_sizes(slot):
        is_unfit = size is None and slot.kind in ADAPTABLE_KINDS
        yield (
            replace(facts, path=path, groups=size.groups if size else 1, misfit=NO_FIT if is_unfit else None),
            size,
        )


def list_paths(slot: Slot) -> Iterator[str]:
    """Yield the paths of the layers of a slot, in the order of their indices; none if they are not on record."""
    return (path for path, _ in _list_sizes(slot))


def _list_sizes(slot: Slot) -> Iterator[tuple[str, Size | None]]:
    names = slot.pattern.split(".")
    for indices, size in sorted(read_members(slot).items()):
        given = iter(indices)
        yield ".".join(str(next(given)) if name == OPEN else name for name in names), size
