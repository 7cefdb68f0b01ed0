"""The scan of a model that cannot be built here, by the names and shapes of its weights.

A listing has the content of a weights file's header. Nothing is built, called or proved: every role comes from names,
shapes and the position of a layer, as in a scan by names.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from math import prod

from ..data import read_facts
from ..domain.architectures import Architecture
from ..domain.layers import Layer
from ..domain.presets import ADAPTABLE_KINDS
from ..domain.scans import Scan
from ..domain.submissions import LARGEST_DIMENSION, MOST_DIMENSIONS, MOST_LAYERS, ListedLayer
from ..domain.vocabulary import CONV_KINDS, Kind, Tower
from ..errors import InvalidRequest, NoAdaptableLayers
from ..validation.text import explain_invalid_name, explain_invalid_path, shorten
from .facts.layers import READS_ITS_PARTS
from .facts.misfits import OWN_FORWARD
from .facts.model_facts import ModelFacts
from .facts.prompt_facts import read_prompt_facts
from .facts.towers import TowerMap, is_below, list_prefixes
from .fingerprint import fingerprint
from .focus import UNLISTED, Focus
from .names.lexicon import load_lexicon, words_of
from .names.static_roles import label_layers
from .names.surroundings import Surroundings
from .proposals import Subject, propose_all
from .saved_modules import find_saved
from .scanner import make_slots

HOW = (
    "nothing was built: kinds and roles rest on the names and shapes listed, and a Conv1D, whose weight is transposed, "
    "looks like a linear unless its class is given"
)

UNKNOWN = "unknown"
"""Class name of a layer listed without one."""

CONV_OF_DIMENSIONS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}
IN_PROJ = "in_proj_weight"
"""Parameter of ``nn.MultiheadAttention`` that packs query, key and value."""
PLAIN_ATTENTION = (None, "MultiheadAttention")
"""Classes of which a listed attention may be without a forward of its own."""


def scan_listing(
    architecture: Architecture, layers: Sequence[ListedLayer], norms: frozenset[str] = frozenset()
) -> Scan:
    """Scan the listed weights of a model.

    Args:
        architecture: The identity of the model.
        layers: Its weights in order, a fused expert by its parameter's path. Vectors but norms are left out.
        norms: Paths of vectors that are weights of modules, and so norms whatever their names.

    Raises:
        InvalidRequest: If there are none or too many, or one has an impossible path or shape, or is there twice.
        NoAdaptableLayers: If an adapter could be put on none of them.
    """
    check_listing(layers)
    listing = list_listed(layers, norms)
    towers = find_towers(listing, architecture)
    facts = collect_listed_facts(architecture, listing, towers)
    labelled = label_layers(Surroundings(facts, towers, listing.module_paths, listing.layers))
    if not any(layer.kind in ADAPTABLE_KINDS for layer in labelled):
        raise NoAdaptableLayers(f"None of the {len(layers)} layers takes an adapter.", reference=architecture.reference)
    saved = find_saved(labelled, facts, listing.module_paths)
    subject = Subject(
        layers=labelled,
        module_paths=listing.module_paths,
        parameter_paths=tuple(x.weight_path for x in labelled),
        norm_sizes={layer.path: layer.shape[0] for layer in labelled if layer.kind == "norm"},
        saved=saved,  # the biases of these heads are not listed
        saved_parameters=sum(prod(x.shape) for x in labelled if any(is_below(x.path, name) for name in saved.names)),
        focus=Focus(UNLISTED),
        has_entry=architecture.has_peft_entry,
    )
    return Scan(
        architecture=replace(architecture, fingerprint=fingerprint(labelled)),
        method="names",
        layers=labelled,
        towers=list_prefixes(towers),
        slots=make_slots(labelled),
        proposals=propose_all(subject),
        module_paths=listing.module_paths,
        beside=subject.beside,
        untraced=tuple(dict.fromkeys(layer.tower for layer in labelled)),
        proof=HOW,
        prompt_facts=read_prompt_facts({}, labelled),
    )


def check_listing(layers: Sequence[ListedLayer]) -> None:
    """Check a listing, before anything is made of it."""
    if not 1 <= len(layers) <= MOST_LAYERS:
        message = f"{len(layers)} layers are listed; a listing has 1 to {MOST_LAYERS}."
        raise InvalidRequest(message, layers=len(layers), limit=MOST_LAYERS)
    twice = next((path for path, count in Counter(layer.path for layer in layers).items() if count > 1), None)
    faults = (fault for layer in layers if (fault := find_fault(layer)))
    fault = f"Layer {shorten(twice)} is listed twice. List each weight once." if twice else next(faults, None)
    if fault:
        raise InvalidRequest(fault)


def find_fault(layer: ListedLayer) -> str | None:
    """Return the fault of a listed layer in words, if its path, shape or class name is impossible."""
    if not len(layer.shape) <= MOST_DIMENSIONS or not all(0 < size <= LARGEST_DIMENSION for size in layer.shape):
        bounds = f"up to {MOST_DIMENSIONS} sizes from 1 to {LARGEST_DIMENSION}"
        return f"Layer {shorten(layer.path)} has shape {str(layer.shape)[:80]}; a shape has {bounds}."
    return explain_invalid_path(layer.path) or (explain_invalid_name(layer.class_name) if layer.class_name else None)


# --- layers and the modules around them -------------------------------------------------------------------------------


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


def list_listed(listed: Sequence[ListedLayer], norms: frozenset[str] = frozenset()) -> Listing:
    """Return the layers of a list of weights, without the weights that no adapter supports."""
    entries = list(_classify(listed, norms))
    owners = (path.rpartition(".")[0] if kind == "expert_parameter" else path for _, kind, path in entries)
    modules = tuple(dict.fromkeys(chain([""], chain.from_iterable(map(_prefixes, owners)))))
    children: dict[str, list[str]] = defaultdict(list)
    for path in filter(None, modules):
        parent, _, name = path.rpartition(".")
        children[parent].append(name)
    containers = frozenset(path for path, names in children.items() if path and all(map(str.isdecimal, names)))
    block_lists = {path for path in containers if repeats_listed_blocks(path, children)}
    blocks = {path for path in children if path.rpartition(".")[0] in block_lists}
    never_called = {f"{path}.out_proj" for _, kind, path in entries if kind == "multihead_attention"}
    layers = tuple(_to_layer(*entry, blocks, never_called) for entry in entries)
    return Listing(layers, modules, containers)


def _classify(listed: Sequence[ListedLayer], norms: frozenset[str]) -> Iterator[tuple[ListedLayer, Kind, str]]:
    """Yield (weight, kind, path) of each supported weight: the path of its module, or of a bare parameter."""
    stacks = list_expert_stacks(listed)
    for weight in listed:
        kind = "norm" if weight.path in norms else kind_of_listed(weight, stacks)
        if kind is not None:
            is_packed = kind == "multihead_attention"
            yield weight, kind, weight.path.removesuffix(f".{IN_PROJ}") if is_packed else weight.path


def _prefixes(path: str) -> Iterator[str]:
    """Yield the paths that lead to a path, the shortest first, and the path itself."""
    return accumulate(path.split("."), "{}.{}".format)


def repeats_listed_blocks(path: str, children: dict[str, list[str]]) -> bool:
    """Identify a list of blocks among lists: two children in a row share most names of their children."""
    blocks = [frozenset(children[f"{path}.{name}"]) for name in children[path] if f"{path}.{name}" in children]
    return any(2 * len(block & after) >= len(block | after) for block, after in pairwise(blocks))


def _to_layer(listed: ListedLayer, kind: Kind, path: str, blocks: set[str], never_called: set[str]) -> Layer:
    """Return the record of a weight; a convolution that reads one channel per group counts as depthwise."""
    around = [prefix for prefix in _prefixes(path) if prefix in blocks]
    shape, is_conv = listed.shape, kind in CONV_KINDS
    groups = shape[0] if is_conv and shape[1] == 1 else 1
    features: tuple[int | None, int | None] = (None, None)
    if kind == "linear" or is_conv:
        features = shape[1] * groups, shape[0]
    elif kind == "multihead_attention":
        features = shape[1], shape[1]
    elif kind in ("transposed_linear", "embedding"):
        features = shape[0], shape[1]
    return Layer(
        path=path,
        kind=kind,
        class_name=listed.class_name or UNKNOWN,
        shape=shape,
        in_features=features[0],
        out_features=features[1],
        groups=groups,
        owner=(listed.class_name or "") if kind == "expert_parameter" else "",
        block=around[-1] if around else None,
        depth=len(around),
        bypassed=READS_ITS_PARTS if path in never_called else None,
        misfit=OWN_FORWARD if kind == "multihead_attention" and listed.class_name not in PLAIN_ATTENTION else None,
    )


# --- the kind of a weight ---------------------------------------------------------------------------------------------


def kind_of_listed(layer: ListedLayer, stacks: frozenset[str]) -> Kind | None:
    """Return the kind of adapter a listed weight needs; ``None`` if no adapter supports it. Stacks are of experts."""
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


# --- towers and heads -------------------------------------------------------------------------------------------------


def find_towers(listing: Listing, architecture: Architecture) -> TowerMap:
    """Return the towers of a listing: the parts outside the blocks that are named for one, and that of the rest."""
    prefixes: dict[str, Tower] = {}
    for layer in listing.layers:
        prefix, tower = find_named_tower(layer)
        if tower:
            prefixes.setdefault(prefix, tower)
    rest = [layer for layer in listing.layers if not any(is_below(layer.path, prefix) for prefix in prefixes)]
    ordered = sorted(prefixes.items(), key=lambda item: -len(item[0]))
    return TowerMap(tuple(ordered), find_rest_tower(rest, architecture, set(prefixes.values())))


def find_named_tower(layer: Layer) -> tuple[str, Tower | None]:
    """Return the outermost part around a layer that is named for a tower; a part that joins towers may be inside."""
    known: dict[Tower, list[str]] = read_facts("sent.toml")["tower"]
    segments = (layer.block or layer.path.rpartition(".")[0]).split(".")
    best: tuple[str, Tower | None] = ("", None)
    for end, segment in enumerate(segments, start=1):
        if segment.isdecimal():
            break
        words = words_of(segment)
        tower = next((tower for tower, named in known.items() if words & set(named)), None)
        if tower == "projector" or (tower and best[1] is None):
            best = ".".join(segments[:end]), tower
    return best


def find_rest_tower(rest: Sequence[Layer], architecture: Architecture, towers: set[Tower]) -> Tower:
    """Return the tower of the layers outside named parts, by their start: a table of tokens, or a convolution."""
    if architecture.library == "timm":
        return "vision"
    kinds = {layer.kind for layer in rest if not layer.depth}
    if "embedding" in kinds:
        return "language"
    if "conv2d" in kinds or "conv3d" in kinds:
        return "vision"
    others = towers - {"projector"}
    if "language" in others:  # the rest is the head of the language tower
        return "language"
    return others.pop() if len(others) == 1 else "main"


def collect_listed_facts(architecture: Architecture, listing: Listing, towers: TowerMap) -> ModelFacts:
    """Return the facts of a listing: its containers, and the layers outside its blocks that are named for a head."""
    names = read_facts("sent.toml")["head"]
    outside = [layer for layer in listing.layers if not layer.depth and layer.kind not in ("norm", "embedding")]
    paths = [layer.path for layer in outside if towers.find_projector(layer.path) is None]
    heads = {next((p for p in _prefixes(path) if p.rpartition(".")[2] in names["task"]), "") for path in paths}
    return ModelFacts(
        architecture=architecture,
        sub_models=(),
        language_heads=frozenset(path for path in paths if set(path.split(".")) & set(names["language"])),
        task_heads=frozenset(heads - {""}),
        containers=listing.containers,
        is_vision_library=architecture.library == "timm",
    )
