"""scan_listing: a model that cannot be built here, by the names and shapes of its weights alone.

What a file's header tells. Nothing is built, called or proved: every role rests on names, shapes and where a layer
stands, as in a scan by names.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..domain.architectures import Architecture
from ..domain.layers import Layer
from ..domain.scans import Scan
from ..domain.submissions import LARGEST_DIMENSION, MOST_DIMENSIONS, MOST_LAYERS, ListedLayer
from ..domain.vocabulary import Tower
from ..errors import InvalidRequest, NoAdaptableLayers
from ..validation.text import explain_invalid_name, explain_invalid_path, shorten
from .facts.data_files import read_facts
from .facts.model_facts import ModelFacts
from .facts.prompt_settings import read_prompt_facts
from .facts.towers import TowerMap, list_prefixes
from .fingerprint import fingerprint
from .names.lexicon import words_of
from .names.listed_layers import Listing, list_listed
from .names.static_roles import label_layers
from .names.surroundings import Surroundings
from .proposals import ADAPTABLE_KINDS, Subject, propose_all, saved_heads
from .slots import make_slots

HOW = (
    "nothing was built: kinds and roles rest on the names and shapes listed, and a Conv1D, whose weight is transposed, "
    "looks like a linear unless its class is given"
)


def scan_listing(architecture: Architecture, layers: Sequence[ListedLayer]) -> Scan:
    """Scan the weights of a model as they are listed.

    Args:
        architecture: What it is.
        layers: Its weights, in its order. A fused expert is listed by the parameter's own path; vectors that are no
            norms, and what has no dimension, are left out.

    Raises:
        InvalidRequest: If there are none or too many, or one has an impossible path or shape, or is there twice.
        NoAdaptableLayers: If an adapter could sit on none of them.
    """
    check_listing(layers)
    listing = list_listed(layers)
    towers = find_towers(listing, architecture)
    facts = _facts(architecture, listing, towers)
    found = label_layers(Surroundings(facts, towers, listing.module_paths, listing.layers))
    if not any(layer.kind in ADAPTABLE_KINDS for layer in found):
        message = f"None of the {len(layers)} layers listed is one an adapter could sit on."
        raise NoAdaptableLayers(message, reference=architecture.reference)
    saved = saved_heads(found, facts)
    norms = {layer.path: layer.shape[0] for layer in found if layer.kind == "norm"}
    subject = Subject(found, listing.module_paths, _parameter_paths(found), norms, saved, _count_saved(found, saved))
    return Scan(
        architecture=replace(architecture, fingerprint=fingerprint(found)),
        method="names",
        layers=found,
        towers=list_prefixes(towers),
        slots=make_slots(found),
        proposals=propose_all(subject),
        module_paths=listing.module_paths,
        untraced=tuple(dict.fromkeys(layer.tower for layer in found)),
        proof=HOW,
        prompt_facts=read_prompt_facts({}, found),
    )


def check_listing(layers: Sequence[ListedLayer]) -> None:
    """Check what is listed, before anything is made of it.

    Raises:
        InvalidRequest: As ``scan_listing``.
    """
    if not 1 <= len(layers) <= MOST_LAYERS:
        message = f"{len(layers)} layers are listed; a listing has 1 to {MOST_LAYERS}."
        raise InvalidRequest(message, layers=len(layers), limit=MOST_LAYERS)
    twice = next((path for path, count in Counter(layer.path for layer in layers).items() if count > 1), None)
    faults = (fault for layer in layers if (fault := _fault_in(layer)))
    fault = f"Layer {shorten(twice)} is listed twice. List each weight once." if twice else next(faults, None)
    if fault:
        raise InvalidRequest(fault)


def _fault_in(layer: ListedLayer) -> str | None:
    if not len(layer.shape) <= MOST_DIMENSIONS or not all(0 < size <= LARGEST_DIMENSION for size in layer.shape):
        bounds = f"up to {MOST_DIMENSIONS} sizes from 1 to {LARGEST_DIMENSION}"
        return f"Layer {shorten(layer.path)} has shape {str(layer.shape)[:80]}; a shape has {bounds}."
    return explain_invalid_path(layer.path) or (explain_invalid_name(layer.class_name) if layer.class_name else None)


def find_towers(listing: Listing, architecture: Architecture) -> TowerMap:
    """Return the towers of a listing: the parts outside the blocks that are named for one; the rest by its start.

    What starts with a table of tokens is language, what starts with a convolution is vision.
    """
    found: dict[str, Tower] = {}
    for layer in listing.layers:
        prefix, tower = _named_tower(layer)
        if tower:
            found.setdefault(prefix, tower)
    rest = [layer for layer in listing.layers if not any(_starts(layer.path, prefix) for prefix in found)]
    prefixes = sorted(found.items(), key=lambda item: -len(item[0]))
    return TowerMap(tuple(prefixes), _tower_of(rest, architecture, found))


def _named_tower(layer: Layer) -> tuple[str, Tower | None]:
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


def _starts(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}.")


def _tower_of(rest: Sequence[Layer], architecture: Architecture, found: dict[str, Tower]) -> Tower:
    if architecture.library == "timm":
        return "vision"
    kinds = {layer.kind for layer in rest if not layer.depth}
    if "embedding" in kinds:
        return "language"
    if "conv2d" in kinds or "conv3d" in kinds:
        return "vision"
    towers = {tower for tower in found.values() if tower != "projector"}
    if "language" in towers:  # what stands beside the parts is the head of what speaks
        return "language"
    return towers.pop() if len(towers) == 1 else "main"


def _facts(architecture: Architecture, listing: Listing, towers: TowerMap) -> ModelFacts:
    """Return what a listing says of itself: what stands outside its blocks and is named for a head."""
    known = read_facts("sent.toml")["head"]
    outside = [layer for layer in listing.layers if not layer.depth and layer.kind not in ("norm", "embedding")]
    free = [layer.path for layer in outside if towers.find_projector(layer.path) is None]
    return ModelFacts(
        architecture=architecture,
        sub_models=(),
        language_heads=frozenset(path for path in free if set(path.split(".")) & set(known["language"])),
        task_heads=frozenset(_head_of(path, known["task"]) for path in free) - {""},
        containers=listing.containers,
        is_vision_library=architecture.library == "timm",
    )


def _head_of(path: str, names: Sequence[str]) -> str:
    """Return the part of a path down to the first segment that is named for a head."""
    segments = path.split(".")
    end = next((n for n, segment in enumerate(segments, start=1) if segment in names), 0)
    return ".".join(segments[:end])


def _parameter_paths(layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(layer.path if layer.kind == "expert_parameter" else f"{layer.path}.weight" for layer in layers)


def _count_saved(layers: Sequence[Layer], names: tuple[str, ...]) -> int:
    """Count the weights below these modules; a bias is not listed."""
    sizes: dict[str, int] = defaultdict(int)
    for layer in layers:
        if any(_starts(layer.path, name) for name in names):
            size = 1
            for length in layer.shape:
                size *= length
            sizes[layer.path] = size
    return sum(sizes.values())
