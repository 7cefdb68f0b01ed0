"""Print the modules of a scan as a folded tree for a terminal: roles in colour, shapes, and a mark at each target."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ...domain.explaining.module_tree import Branch, Leaf, make_tree
from ...domain.patterns import pattern_of
from ...domain.targets import find_hits

if TYPE_CHECKING:
    from ...domain.layers import Layer, Slot
    from ...domain.scans import Proposal, Scan

STYLES = {
    "attention": "cyan",
    "mlp": "green",
    "moe": "magenta",
    "expert": "magenta",
    "embedding": "yellow",
    "head": "red",
    "mixer": "blue",
    "conv": "blue",
    "projector": "blue",
    "modulation": "blue",
}
"""Style of a role by the first part of its name; that of any other role is dim. A theme of the terminal decides how the
colours look, so that they can be read on light and dark."""
DIM = "dim"
MARK = " ●"
"""Behind the name of a target: a sign, since colours may be off."""
ROOMY = 60
"""Columns from which guides are wide and names of siblings stand under each other."""


class NarrowTree(Tree):
    """A tree whose guides take two columns a level, for narrow terminals."""

    ASCII_GUIDES = ("  ", "| ", "+ ", "` ")
    TREE_GUIDES = [("  ", "│ ", "├ ", "└ ")] * 3


def print_scan_tree(scan: "Scan", marked: "Proposal | None", console: Console | None = None) -> None:
    """Print the tree of a scan.

    Args:
        scan: The scan.
        marked: The proposal whose targets are marked.
        console: Where to print; by default the terminal.
    """
    console = console or Console()
    hits = {layer.path for layer in find_hits(marked.spec, scan.layers)} if marked else set()
    legend = Text(MARK.strip(), "bold")
    legend.append(f" target of {marked.peft_type} {marked.preset}" if marked else "", "not bold")
    is_roomy = console.width >= ROOMY
    root = (Tree if is_roomy else NarrowTree)(legend, guide_style=DIM, hide_root=not hits)
    order = {layer.path: number for number, layer in enumerate(scan.layers)}
    folded = make_tree(scan.slots, [0] * len(scan.slots))
    _Grower(_group(scan.layers), order, hits, is_roomy=is_roomy).grow(root, folded)
    console.print(root)


_Key = tuple[object, ...]
"""What the layers of a slot have in common."""


def _group(layers: "Iterable[Layer]") -> "dict[_Key, list[Layer]]":
    """Return layers by slot."""
    grouped = defaultdict[_Key, list["Layer"]](list)
    for layer in layers:
        grouped[(layer.tower, layer.role, layer.kind, pattern_of(layer.path), layer.live, layer.proof)].append(layer)
    return grouped


def _key_of(slot: "Slot") -> _Key:
    return (slot.tower, slot.role, slot.kind, slot.pattern, slot.live, slot.proof)


@dataclass(frozen=True, slots=True)
class _Grower:
    """Add the modules of a scan to a tree.

    Attributes:
        layers: The layers by slot.
        order: Position of each layer in the model, by its path.
        hits: Paths of the targets.
        is_roomy: Whether siblings are aligned.
    """

    layers: "dict[_Key, list[Layer]]"
    order: dict[str, int]
    hits: set[str]
    is_roomy: bool

    def grow(self, tree: Tree, branch: Branch, depth: int = 0) -> None:
        """Add what is in a module, whose path has this number of segments, in the order of the model."""
        around = self._list_layers(branch.list_leaves())
        leaves = [(leaf, self._list_layers([leaf])) for leaf in branch.leaves]
        columns = [_describe(leaf, layers) for leaf, layers in leaves]
        widths = [max(map(len, column)) if self.is_roomy else 0 for column in zip(*columns, strict=True)]
        added: list[tuple[str, Tree]] = []
        for (leaf, layers), texts in zip(leaves, columns, strict=True):
            padded = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
            label = self._make_label(leaf, layers, padded)
            label.append(_count([layer.path for layer in layers], around, depth), "bold")
            label.rstrip()
            added.append((layers[0].path, tree.add(label)))
        for name, child in branch.branches.items():
            inner = depth + name.count(".") + 1
            below = self._list_layers(child.list_leaves())
            label = Text(_printable(name))
            label.append(_count([_cut(layer.path, inner) for layer in below], around, depth), "bold")
            added.append((below[0].path, tree.add(label)))
            self.grow(added[-1][1], child, inner)
        tree.children = [node for _, node in sorted(added, key=lambda each: self.order[each[0]])]

    def _list_layers(self, leaves: "Iterable[Leaf]") -> "list[Layer]":
        keys = dict.fromkeys(_key_of(slot) for leaf in leaves for slot in leaf.slots)
        return sorted((layer for key in keys for layer in self.layers[key]), key=lambda layer: self.order[layer.path])

    def _make_label(self, leaf: Leaf, layers: "Sequence[Layer]", texts: Sequence[str]) -> Text:
        name, role, shape = texts
        style = STYLES.get(leaf.slot.role.partition(".")[0], DIM)
        hits = sum(layer.path in self.hits for layer in layers)
        label = Text()
        label.append(name, "bold" if hits else "")
        label.append(MARK if hits else " " * len(MARK) * self.is_roomy, "bold")
        label.append(f"  {role}", style)
        label.append(f"  {shape}")
        for note, noted in _list_notes(leaf, layers):
            label.append(f"  {note}", noted)
        if 0 < hits < len(layers):
            label.append(f"  {hits} of {len(layers)} are targets", "bold")
        return label


def _describe(leaf: Leaf, layers: "Sequence[Layer]") -> tuple[str, str, str]:
    """Return the name, role and shape of layers."""
    shapes = [*dict.fromkeys(layer.shape for layer in layers)]
    shape = "x".join(map(str, shapes[0]))
    return _printable(leaf.name), leaf.slot.role, f"{shape} and {len(shapes) - 1} more" if shapes[1:] else shape


def _list_notes(leaf: Leaf, layers: "Sequence[Layer]") -> Iterator[tuple[str, str]]:
    """Yield what speaks against layers, and what they share, with its style."""
    if leaf.slot.live is False:
        yield "dead", "bold red"
    if any(slot.bypassed for slot in leaf.slots):
        yield "bypassed", "bold red"
    tied = {layer.tied_to for layer in layers if layer.tied_to}
    if tied:
        yield f"tied to {_printable(min(tied))}", DIM


def _count(paths: Sequence[str], around: "Sequence[Layer]", depth: int) -> str:
    """Return how often a module is in the one around it, and in how many of those: ``  x8 in 24 of 32``.

    Args:
        paths: Its paths, also repeated ones.
        around: All layers in the module around it.
        depth: Segments of the path of that one.
    """
    each = Counter(_cut(path, depth) for path in dict.fromkeys(paths))
    every = {_cut(layer.path, depth) for layer in around}
    fewest, most = min(each.values(), default=1), max(each.values(), default=1)
    times = f"  x{most}" if fewest == most else f"  x{fewest}-{most}"
    return (times if most > 1 else "") + (f"  in {len(each)} of {len(every)}" if len(each) < len(every) else "")


def _cut(path: str, depth: int) -> str:
    return ".".join(path.split(".")[:depth])


def _printable(name: str) -> str:
    """Return a name of a foreign model without characters that would control the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
