"""Derive typed layers from a list of weights: by shape, name, class if given, and siblings."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ...data import read_facts
from ...domain.layers import Layer
from ...domain.submissions import ListedLayer
from ...domain.vocabulary import Kind
from ..facts.layers import READS_ITS_PARTS
from .lexicon import load_lexicon, words_of

UNKNOWN = "unknown"
"""Class name of a layer listed without one."""

CONV_OF_DIMENSIONS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}
IN_PROJ = "in_proj_weight"
"""Parameter of ``nn.MultiheadAttention`` that packs query, key and value."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The layers of a list of weights, with the modules they imply.

    Attributes:
        layers: In the order in which they are listed.
        module_paths: Every module there must be for them, parents first.
        containers: Modules whose children are all numbered.
    """

    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    containers: frozenset[str]


def list_listed(listed: Sequence[ListedLayer]) -> Listing:
    """Return the layers of a list of weights."""
    entries = list(_classify(listed))
    owners = [path.rpartition(".")[0] if kind == "expert_parameter" else path for path, kind, _ in entries]
    modules = _with_parents(owners)
    children: dict[str, dict[str, None]] = defaultdict(dict)
    for path in filter(None, modules):
        parent, _, name = path.rpartition(".")
        children[parent][name] = None
    block_lists = frozenset(path for path in children if repeats_listed_blocks(path, children))
    packed = {f"{path}.out_proj" for path, kind, _ in entries if kind == "multihead_attention"}
    layers = []
    for path, kind, weight in entries:
        block, depth = _innermost_block(path, block_lists, children)
        layer = _to_layer(weight, path, kind, block, depth)
        layers.append(replace(layer, bypassed=READS_ITS_PARTS) if path in packed else layer)
    containers = frozenset(path for path, names in children.items() if path and all(map(str.isdecimal, names)))
    return Listing(tuple(layers), modules, containers)


def _classify(listed: Sequence[ListedLayer]) -> Iterator[tuple[str, Kind, ListedLayer]]:
    """Yield (path, kind, weight) of each supported weight: the path of its module, or of a bare parameter."""
    stacks = list_expert_stacks(listed)
    for weight in listed:
        kind = kind_of_listed(weight, stacks)
        if kind is not None:
            is_packed = kind == "multihead_attention"
            yield weight.path.removesuffix(f".{IN_PROJ}") if is_packed else weight.path, kind, weight


def _with_parents(paths: Iterable[str]) -> tuple[str, ...]:
    """Return every module implied by these paths, parents first."""
    modules: dict[str, None] = {"": None}
    for path in paths:
        segments = path.split(".")
        modules.update(dict.fromkeys(".".join(segments[:end]) for end in range(1, len(segments) + 1)))
    return tuple(modules)


def _to_layer(listed: ListedLayer, path: str, kind: Kind, block: str | None, depth: int) -> Layer:
    """Return the record of a weight; a convolution that reads one channel per group counts as depthwise."""
    shape = listed.shape
    groups = shape[0] if kind in CONV_OF_DIMENSIONS.values() and shape[1] == 1 else 1
    features: tuple[int | None, int | None] = (None, None)
    if kind == "linear":
        features = shape[1], shape[0]
    elif kind in CONV_OF_DIMENSIONS.values():
        features = shape[1] * groups, shape[0]
    elif kind == "multihead_attention":
        features = shape[1], shape[1]
    elif kind in ("transposed_linear", "embedding"):
        features = shape[0], shape[1]
    class_name = listed.class_name or UNKNOWN
    return Layer(
        path=path,
        kind=kind,
        class_name=class_name,
        shape=shape,
        in_features=features[0],
        out_features=features[1],
        groups=groups,
        owner=class_name if kind == "expert_parameter" and listed.class_name else "",
        block=block,
        depth=depth,
    )


# --- the kind of a weight ---------------------------------------------------------------------------------------------


def kind_of_listed(layer: ListedLayer, stacks: frozenset[str]) -> Kind | None:
    """Return the kind of adapter a listed weight needs, or ``None`` if no adapter supports it.

    Args:
        layer: The weight.
        stacks: Paths of fused experts.
    """
    dimensions, name = len(layer.shape), layer.path.rpartition(".")[2]
    if dimensions == 1:
        return "norm" if is_listed_norm(layer, name) else None
    if dimensions == 2 and is_listed_embedding(layer, name):  # noqa: PLR2004
        return "embedding"
    # A parameter that no module multiplies with: named so, or a table for a batch or a token of one.
    is_one_of_one = dimensions == 3 and layer.shape[0] == 1  # noqa: PLR2004
    if is_one_of_one or name.lower().endswith(tuple(read_facts("sent.toml")["bare"]["ends"])):
        return None
    if dimensions != 2:  # noqa: PLR2004
        return "expert_parameter" if layer.path in stacks else CONV_OF_DIMENSIONS.get(dimensions)
    if layer.class_name == "Conv1D":
        return "transposed_linear"
    return "multihead_attention" if name == IN_PROJ or layer.class_name == "MultiheadAttention" else "linear"


def is_listed_norm(layer: ListedLayer, name: str) -> bool:
    """Identify a norm by its name or class, or by a numbered name, because a numbered vector follows a layer."""
    known, class_name = read_facts("sent.toml")["norm"], (layer.class_name or "").lower()
    is_named = any(text.endswith(tuple(known["ends"])) for text in (name.lower(), class_name)) or "norm" in class_name
    return name.isdecimal() or is_named or bool(words_of(name) & set(known["words"]))


def is_listed_embedding(layer: ListedLayer, name: str) -> bool:
    """Identify an embedding by its class if given, else by its name."""
    if layer.class_name:
        return layer.class_name.endswith("Embedding")
    known, words = read_facts("sent.toml")["embedding"], words_of(name)
    if load_lexicon().find(name, "embedding", "", frozenset()):
        return True
    return (name in known["names"] or bool(words & set(known["words"]))) and not words & set(known["unless"])


def list_expert_stacks(listed: Iterable[ListedLayer]) -> frozenset[str]:
    """Return the paths of fused experts: 3-D weights in a module named for experts, or several of equal length."""
    by_module: dict[str, list[ListedLayer]] = defaultdict(list)
    for layer in listed:
        if len(layer.shape) == 3 and 1 not in layer.shape:  # noqa: PLR2004
            by_module[layer.path.rpartition(".")[0]].append(layer)
    stacks: set[str] = set()
    for module, group in by_module.items():
        words = words_of(module.rpartition(".")[2]) | words_of(group[0].class_name or "")
        is_conv = any("conv" in f"{layer.path.rpartition('.')[2]} {layer.class_name}".lower() for layer in group)
        is_stack = len(group) > 1 and len({layer.shape[0] for layer in group}) == 1 and not is_conv
        if words & {"expert", "experts"} or is_stack:
            stacks.update(layer.path for layer in group)
    return frozenset(stacks)


# --- repeated blocks --------------------------------------------------------------------------------------------------


def repeats_listed_blocks(path: str, children: dict[str, dict[str, None]]) -> bool:
    """Identify a list of blocks: its children are numbered, and two in a row share most names of their children."""
    names = children[path]
    if not path or not all(map(str.isdecimal, names)):
        return False
    blocks = [frozenset(children[f"{path}.{name}"]) for name in names if f"{path}.{name}" in children]
    return any(2 * len(block & after) >= len(block | after) for block, after in pairwise(blocks))


def _innermost_block(
    path: str, block_lists: frozenset[str], children: dict[str, dict[str, None]]
) -> tuple[str | None, int]:
    """Return the innermost block around a path, and how many enclose it."""
    segments, innermost, depth = path.split("."), None, 0
    for end in range(1, len(segments)):
        block = ".".join(segments[: end + 1])
        if ".".join(segments[:end]) in block_lists and block in children:
            innermost, depth = block, depth + 1
    return innermost, depth
