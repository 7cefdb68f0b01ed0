"""The scan of a model that cannot be built here, by the names and shapes of its weights.

A listing has the content of a weights file's header. Nothing is built, called or proved: every role comes from names,
shapes and the position of a layer, as in a scan by names.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod

from ..data import read_facts
from ..domain.architectures import Architecture
from ..domain.layers import Layer
from ..domain.scans import Scan
from ..domain.submissions import LARGEST_DIMENSION, MOST_DIMENSIONS, MOST_LAYERS, ListedLayer
from ..domain.vocabulary import Tower
from ..errors import InvalidRequest, NoAdaptableLayers
from ..validation.text import explain_invalid_name, explain_invalid_path, shorten
from .facts.model_facts import ModelFacts
from .facts.prompt_settings import read_prompt_facts
from .facts.towers import TowerMap, is_below, list_prefixes
from .fingerprint import fingerprint
from .names.lexicon import words_of
from .names.listed_layers import Listing, list_listed
from .names.static_roles import label_layers
from .names.surroundings import Surroundings
from .proposals import ADAPTABLE_KINDS, Subject, propose_all, saved_heads
from .scanner import make_slots

HOW = (
    "nothing was built: kinds and roles rest on the names and shapes listed, and a Conv1D, whose weight is transposed, "
    "looks like a linear unless its class is given"
)


def scan_listing(architecture: Architecture, layers: Sequence[ListedLayer]) -> Scan:
    """Scan the listed weights of a model.

    Args:
        architecture: The identity of the model.
        layers: Its weights, in its order. A fused expert is listed by the parameter's own path; vectors other than
            norms, and scalars, are left out.

    Raises:
        InvalidRequest: If there are none or too many, or one has an impossible path or shape, or is there twice.
        NoAdaptableLayers: If an adapter could be put on none of them.
    """
    check_listing(layers)
    listing = list_listed(layers)
    towers = find_towers(listing, architecture)
    facts = collect_listed_facts(architecture, listing, towers)
    labelled = label_layers(Surroundings(facts, towers, listing.module_paths, listing.layers))
    if not any(layer.kind in ADAPTABLE_KINDS for layer in labelled):
        message = f"None of the {len(layers)} layers listed is one an adapter could sit on."
        raise NoAdaptableLayers(message, reference=architecture.reference)
    saved = saved_heads(labelled, facts)
    subject = Subject(
        layers=labelled,
        module_paths=listing.module_paths,
        parameter_paths=tuple(x.path if x.kind == "expert_parameter" else f"{x.path}.weight" for x in labelled),
        norm_sizes={layer.path: layer.shape[0] for layer in labelled if layer.kind == "norm"},
        saved=saved,  # the biases of these heads are not listed
        saved_parameters=sum(prod(x.shape) for x in labelled if any(is_below(x.path, name) for name in saved)),
    )
    return Scan(
        architecture=replace(architecture, fingerprint=fingerprint(labelled)),
        method="names",
        layers=labelled,
        towers=list_prefixes(towers),
        slots=make_slots(labelled),
        proposals=propose_all(subject),
        module_paths=listing.module_paths,
        untraced=tuple(dict.fromkeys(layer.tower for layer in labelled)),
        proof=HOW,
        prompt_facts=read_prompt_facts({}, labelled),
    )


def check_listing(layers: Sequence[ListedLayer]) -> None:
    """Check a listing, before anything is made of it.

    Raises:
        InvalidRequest: As ``scan_listing``.
    """
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
    task_heads: set[str] = set()
    for path in paths:
        segments = path.split(".")
        end = next((n for n, segment in enumerate(segments, start=1) if segment in names["task"]), 0)
        task_heads |= {".".join(segments[:end])} if end else set()
    return ModelFacts(
        architecture=architecture,
        sub_models=(),
        language_heads=frozenset(path for path in paths if set(path.split(".")) & set(names["language"])),
        task_heads=frozenset(task_heads),
        containers=listing.containers,
        is_vision_library=architecture.library == "timm",
    )
