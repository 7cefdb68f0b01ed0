"""The layers of the model that an adapter is for, and the names there of layers that the adapter names otherwise."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, NamedTuple

from torch import nn

from ...discovery import fetch_config, scan_configured, scan_module, scan_stored
from ...domain.architectures import Architecture
from ...domain.layers import Layer, Slot
from ...domain.mappings import ArchitectureDetail
from ...domain.patterns import find_indices, pattern_of
from ...domain.scans import Scan
from ...domain.versions import VersionedRename, parse_version
from ...errors import DatabaseUnusable, HubFailed, InvalidReference, ScanFailed, UnknownArchitecture
from ...references import Reference
from ...references.local_paths import find_path
from ...references.resolver import resolve
from ...registry import Registry
from ...registry.mappings.renames import rename_pattern
from ...validation.text import shorten
from ..peft_forms import read_json

ADAPTABLE = (
    *("linear", "transposed_linear", "conv1d", "conv2d", "conv3d", "embedding", "multihead_attention"),
    "expert_parameter",
)
"""Kinds of layers that take factors."""
LIKE = 0.6
"""The share of a path's parts that a layer of another path must have, to be taken for the same."""

Place = Layer | Slot


@dataclass(frozen=True)
class Base:
    """The layers of a model.

    Attributes:
        reference: The model.
        scan: The scan of a build of its configuration; ``None`` if only its architecture is known.
        places: A layer, or a slot, by path pattern.
        layers: The layers by path; empty without a scan.
        renames: Names of its layers in other library versions.
        note: What is not known of it, if it is not built.
    """

    reference: str
    scan: Scan | None
    places: Mapping[str, Place]
    layers: Mapping[str, Layer] = field(default_factory=dict)
    renames: tuple[VersionedRename, ...] = ()
    note: str = ""

    def find(self, path: str) -> Place | None:
        """Return the layer at a path; without a scan the slot, whose indices are not known."""
        return self.layers.get(path) if self.scan else self.places.get(pattern_of(path))

    def find_all(self, path: str) -> list[Place]:
        """Return the layer at a path, or the parameters of the experts there."""
        own = self.find(path)
        if own is not None:
            return [own]
        inside = [*self.layers.items()] if self.scan else [*self.places.items()]
        start = path if self.scan else pattern_of(path)
        return [one for name, one in inside if one.kind == "expert_parameter" and name.rpartition(".")[0] == start]


def find_base(model: Any) -> Base:
    """Return the layers of a model: a live one, a folder or a repo with its configuration, or an architecture.

    Raises:
        InvalidReference: If it is none of these.
        HubFailed: If its configuration cannot be read.
        ScanFailed: If no model builds from it.
    """
    if isinstance(model, nn.Module):
        return _describe(scan_module(model, method="names"), type(model).__name__)
    text = str(model)
    path = find_path(text)
    if path and path.is_dir():
        return _build(read_json(path / "config.json"), text)
    if path and path.suffix == ".gguf" and path.is_file():
        return _describe(scan_stored(f"file:{path}"), text)
    if isinstance(model, PathLike) or text.startswith("file:"):
        raise InvalidReference(
            f"{shorten(text)} is no folder and no .gguf file. Give that of the base model, with its config.json.",
            reference=text,
        )
    if text.startswith("hub:"):
        return _build(fetch_config(Reference.parse(text)), text)
    return _find_named(text)


def _find_named(text: str) -> Base:
    """Return the layers of a repo on the hub, or of a registered architecture, of which a text is the name."""
    known = next((one for one in resolve(text) if not one.is_guess), None)
    why = ""
    if "/" in text:
        try:
            return _build(fetch_config(Reference.parse(f"hub:{text}")), text)
        except (HubFailed, InvalidReference) as error:
            if known is None:
                raise
            why = f"its config.json was not read ({error.message}), so {known.reference} was taken, as {known.because}"
    if known is None:
        near = next(iter(resolve(text)), None)
        meant = f" Did you mean {near.reference}?" if near else ""
        message = f"{text!r} is no model that is known.{meant} Give the folder of the base model, or hub:org/repo."
        raise InvalidReference(message, reference=text)
    parsed = Reference.parse(known.reference)
    with Registry.open() as registry:
        detail = registry.get_architecture(parsed.scheme, parsed.registered_name)
    return describe_registered(detail, text, why)


def _build(config: Mapping[str, Any], reference: str) -> Base:
    return _describe(_scan(config, reference), reference)


def build_base(config: Mapping[str, Any], reference: str, renames: tuple[VersionedRename, ...]) -> Base:
    """Return the layers of the model that a ``config.json`` describes, with the names of these in other versions.

    Raises:
        ScanFailed: If no model builds from it.
    """
    return _describe(_scan(config, reference), reference, renames)


def _scan(config: Mapping[str, Any], reference: str) -> Scan:
    scan, why = scan_configured(config, "names")  # no role is needed that dataflow tells
    if scan is None:
        raise ScanFailed(f"The layers of {reference} are not known: {why}. Give the architecture: --model llama.")
    return scan


def _describe(scan: Scan, reference: str, renames: tuple[VersionedRename, ...] | None = None) -> Base:
    places: dict[str, Place] = {}
    for layer in scan.layers:
        places.setdefault(pattern_of(layer.path), layer)
    layers = {layer.path: layer for layer in scan.layers}
    note = ""
    if renames is None:
        try:
            renames = _list_renames(scan.architecture)
        except DatabaseUnusable as error:
            renames, note = (), f"names of other library versions were not tried: {error.message}"
    return Base(reference, scan, places, layers, renames, note)


def _list_renames(architecture: Architecture) -> tuple[VersionedRename, ...]:
    if architecture.library != "torch":  # a user's own model is not registered
        with suppress(UnknownArchitecture), Registry.open() as registry:
            return registry.get_architecture(architecture.library, architecture.name).renames
    return ()


def describe_registered(detail: ArchitectureDetail, text: str, why: str = "") -> Base:
    """Return the layers of a registered architecture, whose numbers and sizes are those of a configuration.

    Args:
        detail: The architecture.
        text: What it was named by.
        why: Why it stands for what was named, if that is more than an architecture.
    """
    places = {slot.pattern: slot for slot in detail.slots}
    note = why or f"{text} names an architecture, not a checkpoint"
    note += ": numbers of layers and shapes were not compared. Give the folder or the repo of the base"
    return Base(detail.architecture.reference, None, places, renames=detail.renames, note=note)


# --- names ------------------------------------------------------------------------------------------------------------


class Rename(NamedTuple):
    """The name in the model of the layers that an adapter has under another one.

    Attributes:
        old: Path pattern in the adapter.
        new: Path pattern in the model; empty if there is none.
        says: Why both are taken for the same layers; if there is none, which ones were possible.
        is_certain: Whether it is more than a likeness of names and shapes.
        parts: Names of the layers of one expert that are one parameter of all experts in the model, in the order there.
    """

    old: str
    new: str
    says: str
    is_certain: bool = True
    parts: tuple[str, ...] = ()

    def apply(self, path: str) -> str:
        """Return the path in the model of a layer with this pattern."""
        left = [str(index) for index in find_indices(path)]
        return ".".join((left.pop(0) if left else "0") if part == "*" else part for part in self.new.split("."))


Sides = tuple[int, int] | None
"""The inputs and outputs of the layer that factors are for."""


def find_rename(base: Base, pattern: str, sides: Sides, taken: Iterable[str] = ()) -> Rename | None:
    """Return the name in the model of layers that it has not under their own; ``None`` if nothing looks like them.

    Args:
        base: The model.
        pattern: Path pattern of the layers in the adapter.
        sides: Their inputs and outputs, by the factors.
        taken: Patterns of the model that the adapter has other layers for.
    """
    taken = {*taken}
    for find, is_certain in (
        (_in_a_list, True),
        (_by_version, True),
        (_by_conversion, True),
        (_by_prefix, True),
        (_by_likeness, False),
    ):
        found = {new: says for new, says in find(base, pattern) if _fits(base.places[new], sides) and new not in taken}
        if len(found) == 1:
            ((new, says),) = found.items()
            return Rename(pattern, new, says, is_certain, _list_parts(base, pattern, new))
        if found and find is not _by_prefix:
            return Rename(pattern, "", f"it may be {' or '.join(sorted(found)[:4])}")
    return None


def _list_parts(base: Base, old: str, new: str) -> tuple[str, ...]:
    """Return the names of the layers of one expert that a parameter joins, as transformers joins their weights."""
    if base.scan is None or base.scan.architecture.library != "transformers" or old.count("*") <= new.count("*"):
        return ()
    for step in _list_conversions(base.scan.architecture.name):
        names = tuple(one.removesuffix(".weight").rpartition(".")[2] for one in step.source_patterns)
        if new.endswith(tuple(step.target_patterns)) and old.rpartition(".")[2] in names:
            return names
    return ()


def _fits(place: Place, sides: Sides) -> bool:
    """Return whether a layer takes factors of these sides, as far as its shape is known."""
    if place.kind not in ADAPTABLE:
        return False
    return sides is None or not isinstance(place, Layer) or matches(place, sides)


def matches(layer: Layer, sides: tuple[int, int]) -> bool:
    """Return whether the factors for a layer with these inputs and outputs fit this one."""
    if layer.kind == "expert_parameter":
        orders = (sides, sides[::-1])  # the projection may be a part of a fused one
        return any(
            a == one and b % other == 0 for a, b in (layer.shape[-2:], layer.shape[:-3:-1]) for one, other in orders
        )
    if layer.kind == "multihead_attention" or layer.in_features is None or layer.out_features is None:
        return True
    inputs = layer.in_features // layer.groups if layer.kind.startswith("conv") else layer.in_features
    return sides == (inputs, layer.out_features)


Found = Iterator[tuple[str, str]]
"""Patterns of the model, each with why it is taken for that of an adapter."""


def _in_a_list(base: Base, pattern: str) -> Found:
    """Yield the layer as the first of a list, or the layer of which it was one, such as ``to_out.0``."""
    for new in (f"{pattern}.*", pattern.removesuffix(".*")):
        if new in base.places and new != pattern:
            yield new, "the same layer, in a list in one of both"


def _by_version(base: Base, pattern: str) -> Found:
    """Yield the names that the layer has in other versions of the library."""
    library = base.scan.architecture.library if base.scan else base.reference.partition(":")[0]
    forms = [pattern, *(f"model.{pattern}", pattern.removeprefix("model."))]
    for form in dict.fromkeys(forms):
        for step in _steps(base.renames):
            for start, end, versions in _walk(form, step):
                if end in base.places and end != pattern:
                    yield end, f"its name in {library} {versions}"
                elif (near := f"model.{end}") in base.places or (near := end.removeprefix("model.")) in base.places:
                    yield near, f"its name in {library} {versions}, with the prefix of {start}"


def _by_conversion(base: Base, pattern: str) -> Found:
    """Yield the names that the library gives to those of older checkpoints as it loads them.

    A model that became a part of another had a prefix of its own inside, such as ``model``, which went.
    """
    for form in _convert(base, pattern):
        steps = (end for step in _steps(base.renames) for _, end, _ in _walk(form, step))
        ends = (end for name in dict.fromkeys((form, *steps)) for end in (name, *_drop_prefixes(name)))
        for end in ends:
            if end in base.places and end != pattern:
                yield end, "its name where transformers loads checkpoints of older versions"


def _drop_prefixes(path: str) -> Iterator[str]:
    """Yield the path without each ``model`` inside it."""
    parts = path.split(".")
    yield from (".".join(parts[:at] + parts[at + 1 :]) for at in range(1, len(parts)) if parts[at] == "model")


def _convert(base: Base, pattern: str) -> Iterator[str]:
    """Yield the path that transformers' own renames of checkpoints make of one, if any applies."""
    library, _, name = base.reference.partition(":")
    if base.scan is not None:
        library, name = base.scan.architecture.library, base.scan.architecture.name
    if library == "transformers":
        for step in _list_conversions(name):
            sources, targets = step.source_patterns, step.target_patterns
            if len(sources) == len(targets) == 1 and (changed := re.sub(sources[0], targets[0], pattern)) != pattern:
                yield changed


def _list_conversions(model_type: str) -> Sequence[Any]:
    """Return transformers' renames and conversions of checkpoints of a type."""
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: PLC0415 - an extra
    except ImportError:  # before 5.0, whose models have experts one by one
        return ()
    return tuple(get_checkpoint_conversion_mapping(model_type) or ())


def _steps(renames: Sequence[VersionedRename]) -> Iterator[dict[tuple[str, str], list[Any]]]:
    """Yield the renames by (from, to) version: as they happened, and backwards for an adapter that is newer."""
    forward, backward = defaultdict[tuple[str, str], list[Any]](list), defaultdict[tuple[str, str], list[Any]](list)
    for one in renames:
        forward[one.from_version, one.to_version].append(one.rename)
        backward[one.to_version, one.from_version].append(type(one.rename)(one.new, one.old, one.says))
    yield forward
    yield backward


def _walk(pattern: str, steps: Mapping[tuple[str, str], list[Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield (pattern, its later name, the version of that) for all versions that renamed it."""
    for first, last in sorted(steps, key=lambda pair: parse_version(pair[1])):
        for new in rename_pattern(pattern, steps[first, last]):
            if new != pattern:
                yield pattern, new, f"{last}, where {first} has this one"


def _by_prefix(base: Base, pattern: str) -> Found:
    """Yield the layers whose paths differ by the beginning alone, without a number in it."""
    for new in base.places:
        longer, shorter = sorted((new, pattern), key=len, reverse=True)
        start = longer.removesuffix(f".{shorter}")
        if start != longer and "*" not in start.split("."):
            yield new, f"the same layer {'with' if longer == new else 'without'} the prefix '{start}.'"


def _by_likeness(base: Base, pattern: str) -> Found:
    """Yield the layers of the same name whose paths have most parts in common."""
    own = Counter(pattern.split("."))
    scores = {
        new: (own & other).total() / (own | other).total()
        for new in base.places
        if new.rpartition(".")[2] == pattern.rpartition(".")[2] and new != pattern
        if (other := Counter(new.split(".")))["*"] == own["*"]
    }
    best = max(scores.values(), default=0.0)
    if best >= LIKE:
        yield from (
            (new, "the layer of this name whose path is most alike") for new, one in scores.items() if one == best
        )
