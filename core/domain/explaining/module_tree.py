"""Fold the slots of an architecture into a tree of modules, as small for 128 experts as for one."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..layers import Slot
from ..patterns import OPEN

_NUMBER = re.compile(r"\d+")
_SIZE = re.compile(r":(\d+)")
FEW = 4
"""Siblings named alike but for a number that are still listed one by one."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The layers of one path pattern, role and state.

    Attributes:
        path: Path pattern, ``*`` in place of each index and of numbers in names that are alike.
        slots: The slots folded into it.
        count: Number of layers.
        adapted: Number of layers that the targets match.
        sizes: Parameters that each rank of LoRA adds on one layer, the smallest and the largest; empty if none fits.
        state: ``live``, ``dead`` or ``unproven``.
    """

    path: str
    slots: tuple[Slot, ...]
    count: int
    adapted: int
    sizes: tuple[int, ...]

    @property
    def slot(self) -> Slot:
        """The first of its slots, which agree in role, kind, state and tower."""
        return self.slots[0]

    @property
    def name(self) -> str:
        """Last part of the path, below the module that holds it."""
        return self.path.rpartition(".")[2]

    @property
    def state(self) -> str:
        """Whether an adapter on them learns."""
        return {True: "live", False: "dead", None: "unproven"}[self.slot.live]


@dataclass(slots=True)
class Branch:
    """A module with layers below it.

    Attributes:
        name: Its path below the branch that holds it; ``*`` stands for an index.
        branches: The modules in it.
        leaves: The layers directly in it.
    """

    name: str
    branches: dict[str, "Branch"] = field(default_factory=dict)
    leaves: list[Leaf] = field(default_factory=list)

    def list_leaves(self) -> Iterator[Leaf]:
        """Yield all layers below it."""
        yield from self.leaves
        for branch in self.branches.values():
            yield from branch.list_leaves()

    @property
    def summary(self) -> str:
        """Its layers in words: ``224 layers, 160 adapted``."""
        leaves = [*self.list_leaves()]
        adapted = sum(leaf.adapted for leaf in leaves)
        total = sum(leaf.count for leaf in leaves)
        return f"{total:,} {'layer' if total == 1 else 'layers'}" + (f", {adapted:,} adapted" if adapted else "")

    @property
    def is_adapted(self) -> bool:
        """Whether the targets match a layer below it."""
        return any(leaf.adapted for leaf in self.list_leaves())


def make_tree(slots: Sequence[Slot], adapted: Sequence[int]) -> Branch:
    """Return the tree of slots.

    Args:
        slots: The slots, in the order of the model.
        adapted: The number of layers of each that the targets match.
    """
    alike = _find_alike(slot.pattern for slot in slots)
    groups: dict[tuple[object, ...], list[tuple[Slot, int]]] = {}
    for slot, count in zip(slots, adapted, strict=True):
        state = (slot.role, slot.kind, slot.live, slot.proof, slot.tower)
        groups.setdefault((_fold(slot.pattern, alike), count > 0, *state), []).append((slot, count))
    root = Branch("")
    for (path, *_), found in groups.items():
        parents = str(path).split(".")[:-1]
        branch = root
        for parent in parents:
            branch = branch.branches.setdefault(parent, Branch(parent))
        branch.leaves.append(_make_leaf(str(path), found))
    return _shorten(root)


def _make_leaf(path: str, found: Sequence[tuple[Slot, int]]) -> Leaf:
    sizes = sorted({size for slot, _ in found for size in _list_sizes(slot)})
    ends = tuple(dict.fromkeys((sizes[0], sizes[-1]))) if sizes else ()
    count, adapted = (sum(numbers) for numbers in zip(*((slot.count, hit) for slot, hit in found), strict=True))
    return Leaf(path, tuple(slot for slot, _ in found), count, adapted, ends)


def _find_alike(patterns: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return the parents with many children named alike but for a number, with that name: ``experts.expert_*``."""
    children: dict[tuple[str, str], set[str]] = {}
    for pattern in patterns:
        parts = pattern.split(".")
        for depth, part in enumerate(parts):
            open_name = _NUMBER.sub(OPEN, part)
            if open_name not in (part, OPEN):
                children.setdefault((".".join(parts[:depth]), open_name), set()).add(part)
    return frozenset(key for key, names in children.items() if len(names) > FEW)


def _fold(pattern: str, alike: frozenset[tuple[str, str]]) -> str:
    """Return a pattern with one name for parts that are alike."""
    parts = pattern.split(".")
    folded = [
        open_name if (".".join(parts[:depth]), open_name := _NUMBER.sub(OPEN, part)) in alike else part
        for depth, part in enumerate(parts)
    ]
    return ".".join(folded)


def _list_sizes(slot: Slot) -> set[int]:
    if slot.members:
        return {int(size) for size in _SIZE.findall(slot.members)}
    return {slot.per_rank // slot.count} if slot.per_rank and slot.count else set()


def _shorten(branch: Branch) -> Branch:
    """Join a module with the only one in it: ``model.layers.*``."""
    branches: dict[str, Branch] = {}
    for name, child in branch.branches.items():
        short = _shorten(child)
        only = next(iter(short.branches.values())) if len(short.branches) == 1 and not short.leaves else None
        if only is not None:
            joined = f"{name}.{only.name}"
            branches[joined] = Branch(joined, only.branches, only.leaves)
        else:
            branches[name] = short
    branch.branches = branches
    return branch
