"""Listed weights -> typed layers: what each is by its shape, its name, its class if given, and what is beside it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...domain.scans import Layer
from ...domain.submissions import ListedLayer
from ...domain.vocabulary import Kind
from ..names.lexicon import load_lexicon, words_of
from .data_files import read_facts
from .layers import READS_ITS_PARTS

UNKNOWN = "unknown"
"""Stands for a class that was not given."""

CONV_OF_DIMENSIONS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}
IN_PROJ = "in_proj_weight"
"""Of ``nn.MultiheadAttention``: a bare parameter that holds query, key and value."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed, as layers.

    Attributes:
        layers: In the order in which they are listed.
        module_paths: Every module there must be for them, parents first.
        containers: Modules whose children are all numbered.
    """

    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    containers: frozenset[str]


def list_listed(listed: Sequence[ListedLayer]) -> Listing:
    """Return the layers of a listing."""
    stacks = _stacks(listed)
    kinds = [(layer, kind) for layer in listed if (kind := kind_of_listed(layer, stacks))]
    placed = {layer.path: _place(layer, kind) for layer, kind in kinds}
    owners = [path.rpartition(".")[0] if kind == "expert_parameter" else path for path, kind in placed.values()]
    modules = _with_parents(owners)
    children = _children(modules)
    blocks = _Blocks(children)
    unheard = {f"{path}.out_proj" for path, kind in placed.values() if kind == "multihead_attention"}
    layers = tuple(_to_layer(layer, *placed[layer.path], blocks, unheard) for layer, _ in kinds)
    containers = frozenset(path for path, names in children.items() if path and all(map(str.isdecimal, names)))
    return Listing(layers, modules, containers)


def kind_of_listed(layer: ListedLayer, stacks: frozenset[str]) -> Kind | None:
    """Return what an adapter on a listed weight would have to imitate; ``None`` for what no adapter knows of.

    Args:
        layer: The weight.
        stacks: Paths of the stacks of matrices that stand beside one another.
    """
    dimensions, name = len(layer.shape), layer.path.rpartition(".")[2]
    if dimensions == 1:
        return "norm" if _normalises(layer) else None
    if dimensions == 2 and _is_looked_up(layer, name):  # noqa: PLR2004
        return "embedding"
    if _is_bare(layer, name):
        return None
    if dimensions == 2:  # noqa: PLR2004
        return _kind_of_matrix(layer, name)
    return "expert_parameter" if layer.path in stacks else CONV_OF_DIMENSIONS.get(dimensions)


def _is_bare(layer: ListedLayer, name: str) -> bool:
    """Tell whether no module multiplies with a parameter: it is named so, or is a table of one batch, or one token."""
    is_one_of_one = len(layer.shape) == 3 and layer.shape[0] == 1  # noqa: PLR2004
    return is_one_of_one or name.lower().endswith(tuple(read_facts("sent.toml")["bare"]["ends"]))


def _kind_of_matrix(layer: ListedLayer, name: str) -> Kind:
    if layer.class_name == "Conv1D":
        return "transposed_linear"
    if name == IN_PROJ or layer.class_name == "MultiheadAttention":
        return "multihead_attention"
    return "linear"


def _is_looked_up(layer: ListedLayer, name: str) -> bool:
    if layer.class_name:
        return layer.class_name.endswith("Embedding")
    known, words = read_facts("sent.toml")["embedding"], words_of(name)
    if load_lexicon().find(name, "embedding", "", frozenset()):
        return True
    return (name in known["names"] or bool(words & set(known["words"]))) and not words & set(known["unless"])


def _normalises(layer: ListedLayer) -> bool:
    """A vector is a norm by its name or its class; one that goes by a number stands behind a layer, as a norm does."""
    known, name = read_facts("sent.toml")["norm"], layer.path.rpartition(".")[2]
    said = [name.lower(), (layer.class_name or "").lower()]
    is_named = any(text.endswith(tuple(known["ends"])) for text in said) or "norm" in said[1]
    return name.isdecimal() or is_named or bool((words_of(name) | {name.lower()}) & set(known["words"]))


def _stacks(listed: Iterable[ListedLayer]) -> frozenset[str]:
    """Return the paths of fused experts: stacks of matrices that agree on their number, or are named for experts."""
    beside: dict[str, list[ListedLayer]] = defaultdict(list)
    for layer in listed:
        if len(layer.shape) == 3 and 1 not in layer.shape:  # noqa: PLR2004
            beside[layer.path.rpartition(".")[0]].append(layer)
    return frozenset(layer.path for parent, group in beside.items() for layer in group if _are_experts(parent, group))


def _are_experts(parent: str, group: Sequence[ListedLayer]) -> bool:
    words = words_of(parent.rpartition(".")[2]) | words_of(group[0].class_name or "")
    is_named = bool(words & {"expert", "experts"})
    return is_named or (
        len(group) > 1 and len({layer.shape[0] for layer in group}) == 1 and not _are_convolutions(group)
    )


def _are_convolutions(group: Sequence[ListedLayer]) -> bool:
    return any("conv" in f"{layer.path.rpartition('.')[2]} {layer.class_name}".lower() for layer in group)


def _place(layer: ListedLayer, kind: Kind) -> tuple[str, Kind]:
    """Return the path of the module that owns a weight, or of the bare parameter, and its kind."""
    is_inside = kind == "multihead_attention" and layer.path.endswith(f".{IN_PROJ}")
    return (layer.path.removesuffix(f".{IN_PROJ}") if is_inside else layer.path), kind


def _to_layer(listed: ListedLayer, path: str, kind: Kind, blocks: "_Blocks", unheard: set[str]) -> Layer:
    groups = listed.shape[0] if kind in CONV_OF_DIMENSIONS.values() and listed.shape[1] == 1 else 1
    read, written = _features(kind, listed.shape, groups)
    block, depth = blocks.around(path)
    class_name = listed.class_name or UNKNOWN
    return Layer(
        path=path,
        kind=kind,
        class_name=class_name,
        shape=listed.shape,
        in_features=read,
        out_features=written,
        groups=groups,
        owner=class_name if kind == "expert_parameter" and listed.class_name else "",
        block=block,
        depth=depth,
        bypassed=READS_ITS_PARTS if path in unheard else None,
    )


def _features(kind: Kind, shape: tuple[int, ...], groups: int) -> tuple[int | None, int | None]:
    """Return what a layer reads and writes; a convolution that reads one channel per group is taken for depthwise."""
    if kind == "linear":
        return shape[1], shape[0]
    if kind in CONV_OF_DIMENSIONS.values():
        return shape[1] * groups, shape[0]
    if kind == "multihead_attention":
        return shape[1], shape[1]
    return (shape[0], shape[1]) if kind in ("transposed_linear", "embedding") else (None, None)


class _Blocks:
    """Which modules are repeated blocks, by the names of their children alone."""

    def __init__(self, children: dict[str, dict[str, None]]) -> None:
        self._lists = {path for path in children if _repeats(path, children)}
        self._children = children

    def around(self, path: str) -> tuple[str | None, int]:
        """Return the innermost block around a path, and how many there are."""
        segments, innermost, depth = path.split("."), None, 0
        for end in range(1, len(segments)):
            block = ".".join(segments[: end + 1])
            if ".".join(segments[:end]) in self._lists and block in self._children:
                innermost, depth = block, depth + 1
        return innermost, depth


def _repeats(path: str, children: dict[str, dict[str, None]]) -> bool:
    """A list of blocks has numbered children, of which two in a row hold mostly parts of the same names."""
    names = children[path]
    if not path or not all(map(str.isdecimal, names)):
        return False
    held = [frozenset(children[f"{path}.{name}"]) for name in names if f"{path}.{name}" in children]
    return any(2 * len(one & other) >= len(one | other) for one, other in pairwise(held))


def _children(modules: Iterable[str]) -> dict[str, dict[str, None]]:
    """Return the names of the children of every module that has some."""
    children: dict[str, dict[str, None]] = defaultdict(dict)
    for path in modules:
        if path:
            parent, _, name = path.rpartition(".")
            children[parent][name] = None
    return dict(children)


def _with_parents(paths: Iterable[str]) -> tuple[str, ...]:
    """Return every module there must be for these, parents first."""
    found: dict[str, None] = {"": None}
    for path in paths:
        segments = path.split(".")
        for end in range(1, len(segments) + 1):
            found[".".join(segments[:end])] = None
    return tuple(found)
