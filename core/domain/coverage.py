"""Coverage: which of a model's repeated blocks a set of layers reaches, by kind of block, and how much of them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Mapping as Json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Self

from .patterns import pattern_of

if TYPE_CHECKING:
    from .scans import Layer

BlockKind = tuple[str, frozenset[tuple[str, str]]]
"""Where blocks stand, and what they hold: (path of a layer inside, its kind)."""

_NO_STRUCTURE = ("norm", "embedding", "other")
"""Kinds that do not tell blocks apart: the first block of a stack alone may hold a table of positions."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many blocks of one kind are reached: blocks are of one kind if they hold the same layers.

    Attributes:
        block: Where they stand, with the classes that tell them from the other kinds there:
            ``model.layers.* (NemotronHAttention)``.
        hit: Blocks with at least one layer reached.
        of: Blocks of this kind.
    """

    block: str
    hit: int
    of: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"block": self.block, "hit": self.hit, "of": self.of}

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a coverage from its JSON form."""
        return cls(data["block"], data["hit"], data["of"])


class Blocks:
    """The repeated blocks of a model, by kind."""

    def __init__(self, layers: Sequence["Layer"]) -> None:
        self._kinds = _kinds_of_blocks(layers)
        self._names = _named(layers, self._kinds)
        self._sizes = {layer.path: prod(layer.shape) for layer in layers if layer.depth and layer.tied_to is None}
        self._total = sum(self._sizes.values())

    def cover(self, hit: Iterable["Layer"]) -> tuple[Coverage, ...]:
        """Return how many blocks of each kind the layers hit stand in, in the order in which the model holds them."""
        reached = {layer.block for layer in hit if layer.block}
        of, found = Counter[str](), Counter[str]()
        for block, kind in self._kinds.items():  # kinds that no class tells apart go by one name
            of[self._names[kind]] += 1
            found[self._names[kind]] += block in reached
        return tuple(Coverage(name, found[name], count) for name, count in of.items())

    def share(self, hit: Iterable["Layer"]) -> float:
        """Return the share of the weights in the blocks that the layers hit own, 0 to 1; shared ones count once."""
        reached = sum(self._sizes.get(layer.path, 0) for layer in hit)
        return round(reached / self._total, 6) if self._total else 0.0


def _kinds_of_blocks(layers: Iterable["Layer"]) -> dict[str, BlockKind]:
    inside: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for layer in layers:
        if layer.block:
            held = inside[layer.block]
            if layer.kind not in _NO_STRUCTURE:
                held.add((pattern_of(layer.path.removeprefix(f"{layer.block}.")), layer.kind))
    return {block: (pattern_of(block), frozenset(held)) for block, held in inside.items()}


def _named(layers: Iterable["Layer"], kinds: dict[str, BlockKind]) -> dict[BlockKind, str]:
    """Name each kind by where it stands; where several do, by the classes that not all of them hold too."""
    owners: dict[BlockKind, dict[str, None]] = {kind: {} for kind in kinds.values()}
    for layer in layers:
        if layer.block and layer.kind not in _NO_STRUCTURE:
            owners[kinds[layer.block]][layer.owner] = None
    return {kind: _name(kind, owners) for kind in owners}


def _name(kind: BlockKind, owners: dict[BlockKind, dict[str, None]]) -> str:
    beside: list[Collection[str]] = [held for other, held in owners.items() if other[0] == kind[0] and other != kind]
    own = [owner for owner in owners[kind] if not all(owner in held for held in beside)]
    return f"{kind[0]} ({', '.join(own)})" if beside and own else kind[0]
