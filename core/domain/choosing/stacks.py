"""The positions of blocks: the stack that holds each, its number there, and the number of blocks.

A tower may have several stacks, such as an encoder and a decoder, and each counts its own blocks. Where a stack is
divided into stages, as in Swin, the count runs on through all of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..layers import Layer
from ..patterns import list_prefixes

NETWORK = ("attention", "mixer", "mlp", "expert", "conv")
"""Families of the roles that a block is made of."""


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a layer: the path of its stack, the number of its block there, and the number of blocks."""

    stack: str
    number: int
    depth: int


def find_positions(layers: Sequence[Layer]) -> dict[str, Position]:
    """Return the position of each layer that stands in a block, by path."""
    blocks = _find_blocks(layers)
    stacks: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for block, stack in blocks.values():
        stacks[stack][block] = None
    numbers = {
        stack: {block: number for number, block in enumerate(sorted(members, key=_by_index))}
        for stack, members in stacks.items()
    }
    return {
        path: Position(stack, numbers[stack][block], len(numbers[stack])) for path, (block, stack) in blocks.items()
    }


def _by_index(path: str) -> tuple[tuple[bool, int, str], ...]:
    return tuple((name.isdecimal(), int(name) if name.isdecimal() else 0, name) for name in path.split("."))


def _find_blocks(layers: Sequence[Layer]) -> dict[str, tuple[str, str]]:
    """Return the block of each layer in one, and its stack: the outermost list of blocks around the layer.

    The block is the outermost member of a list that is no mere stage.
    """
    around = {layer.path: _list_around(layer) for layer in layers if layer.block}
    stages = _find_stages(layers, around)
    return {
        path: (next((block for block in blocks if block not in stages), blocks[-1]), _list_of(blocks[0]))
        for path, blocks in around.items()
    }


def _list_around(layer: Layer) -> tuple[str, ...]:
    """Return the blocks around a layer, the outermost first."""
    blocks = [prefix for prefix in list_prefixes(layer.block or "") if prefix.rpartition(".")[2].isdecimal()]
    return tuple(blocks[-layer.depth :]) or (layer.block or "",)


def _list_of(block: str) -> str:
    return block.rpartition(".")[0]


def _find_stages(layers: Iterable[Layer], around: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the members of lists that are stages: all of their network is in one inner list of whole blocks.

    Either every member of a list that holds lists is a stage, or none: a block may hold a list of its sublayers or of
    experts.
    """
    inner, families = _look_inside(layers, around)
    whole = {_list_of(block) for block, found in families.items() if len(found) > 1 or found == {"conv"}}
    holders = {block: found for block, found in inner.items() if found != {""}}
    others = {_list_of(block) for block, found in holders.items() if len(found) > 1 or not found <= whole}
    return {block for block in holders if _list_of(block) not in others}


def _look_inside(
    layers: Iterable[Layer], around: Mapping[str, tuple[str, ...]]
) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
    """Return the inner lists with the network of each block ("" for layers of its own), and its families of roles."""
    inner: defaultdict[str, set[str]] = defaultdict(set)
    families: defaultdict[str, set[str]] = defaultdict(set)
    for path, family in ((layer.path, layer.role.partition(".")[0]) for layer in layers):
        if path in around and family in NETWORK:
            for outer, block in pairwise((*around[path], "")):
                inner[outer].add(_list_of(block))
                families[outer].add(family)
    return inner, families
