"""Whether a registry entry fits a model, by the model's own layers: no forward runs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from typing import NamedTuple

from torch import nn

from ..discovery import StaticModel, proof_holds
from ..domain.architectures import Architecture
from ..domain.layers import Evidence, Layer, Slot
from ..domain.mappings import Mapping
from ..domain.methods import get_method
from ..domain.patterns import name_targets, pattern_of
from ..domain.targets import TargetMatcher, TargetSpec, excluding, find_hits, without_exclusion
from ..domain.vocabulary import Kind, Role, Tower
from .known import Entry

AROUND: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles of what a task class adds to its base model or lacks; a forward does not change them."""


class _Place(NamedTuple):
    """What a layer and a slot have in common."""

    tower: Tower
    kind: Kind
    pattern: str


@dataclass(frozen=True, slots=True)
class Fit:
    """An entry as it fits one model.

    Attributes:
        mapping: The entry, narrowed to what it means in this model.
        layers: The layers that it hits, with role and evidence from the registry's slots.
        modules_to_save: The heads of this model to train in full.
    """

    mapping: Mapping
    layers: tuple[Layer, ...]
    modules_to_save: tuple[str, ...] | None


def fit(entry: Entry, model: nn.Module, static: StaticModel) -> Fit | None:
    """Return an entry as it fits a model; ``None`` if only a forward can tell whether it does.

    It fits if it is verified, the model holds the blocks it was verified on, as many or in proportion, and what the
    model holds besides is of no concern to any preset. Where single layers of a slot count (dead ones, or targets by
    index), the proof must be of this very class, version and configuration.
    """
    verification = entry.mapping.verification
    if verification is None or verification.status not in ("live", "unproven"):
        return None
    places = _Places(entry, static)
    if not places.are_same and not _is_alike(places, entry):
        return None
    mapping = _without_strays(entry.mapping, places)
    hits = find_hits(mapping.spec, static.layers)
    if not places.are_same and not _hits_all(mapping.spec, hits, static):
        return None
    if _depends_on_indices(hits, places, entry) and not (places.are_same and _is_proved(entry, model, static)):
        return None
    saved = static.find_saved(_label_ends(places, entry)) or None
    return Fit(mapping, tuple(_describe(hits, places, entry)), saved)


@dataclass(frozen=True)
class _Places:
    """The layers of a model and the slots of an entry by place; the slots are under the model's own paths."""

    entry: Entry
    static: StaticModel

    @cached_property
    def own(self) -> dict[_Place, list[Layer]]:
        """The layers of the model."""
        found: defaultdict[_Place, list[Layer]] = defaultdict(list)
        for layer in self.static.layers:
            found[self.of(layer)].append(layer)
        return dict(found)

    def of(self, layer: Layer) -> _Place:
        """Return the place of a layer."""
        return _Place(self.static.towers.find(layer.path), layer.kind, pattern_of(layer.path))

    @cached_property
    def known(self) -> dict[_Place, list[Slot]]:
        """The slots of the entry; the paths of a base model are shorter than those of a class with a head."""
        slots = self.entry.architecture.slots
        cut, put = _find_prefixes([place.pattern for place in self.own], [slot.pattern for slot in slots])
        found: defaultdict[_Place, list[Slot]] = defaultdict(list)
        for slot in slots:
            found[_Place(slot.tower, slot.kind, put + slot.pattern.removeprefix(cut))].append(slot)
        return dict(found)

    @cached_property
    def counts(self) -> dict[_Place, tuple[int, int]]:
        """How many layers the model and the entry have, where both have any."""
        both = ((place, slots) for place, slots in self.known.items() if place in self.own)
        return {place: (len(self.own[place]), sum(slot.count for slot in slots)) for place, slots in both}

    @cached_property
    def unknown(self) -> tuple[Layer, ...]:
        """The layers of the model where the entry has no slot."""
        return tuple(layer for place, layers in self.own.items() if place not in self.known for layer in layers)

    @cached_property
    def are_same(self) -> bool:
        """Whether the model has the layers of the entry, one for one."""
        is_whole = len(self.counts) == len(self.own) == len(self.known)
        return is_whole and all(own == known for own, known in self.counts.values())


def _find_prefixes(own: Iterable[str], known: Iterable[str]) -> tuple[str, str]:
    """Return what to cut from the known patterns and what to put before them, so that those in blocks meet."""
    ours, theirs = ([pattern for pattern in patterns if "*" in pattern] for patterns in (own, known))
    if not {*ours}.isdisjoint(theirs):
        return "", ""
    for pattern in ours[:1]:
        for other in theirs:
            if other.endswith(f".{pattern}"):
                return other.removesuffix(pattern), ""
            if pattern.endswith(f".{other}"):
                return "", pattern.removesuffix(other)
    return "", ""


def _is_alike(places: _Places, entry: Entry) -> bool:
    """Tell whether a model differs from what was scanned in its depth and in what stands around the blocks alone."""
    missing = (slot for place, slots in places.known.items() if place not in places.own for slot in slots)
    if any(slot.role not in AROUND or (slot.role == "norm" and "*" in slot.pattern) for slot in missing):
        return False
    ratios: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for place, (own, known) in places.counts.items():
        divisor = gcd(own, known)
        ratios[place.pattern.rpartition("*")[0]].add((own // divisor, known // divisor))
    if any(len(found) > 1 for found in ratios.values()):
        return False
    if get_method(entry.mapping.peft_type).family == "LN_TUNING":  # adapts norms outside the blocks, too
        return not places.unknown
    return all(_is_around(layer, places.static) for layer in places.unknown)


def _is_around(layer: Layer, static: StaticModel) -> bool:
    """Tell whether no preset adapts a layer, whatever a forward shows of it."""
    (labelled,) = static.label((layer,))
    if labelled.depth:
        return labelled.role == "head"
    has_blocks = any(other.depth and static.towers.find(other.path) == labelled.tower for other in static.layers)
    return has_blocks or labelled.role in AROUND


def _without_strays(mapping: Mapping, places: _Places) -> Mapping:
    """Exclude what an entry hits where it has no slot: the pooler of a model with another head."""
    strays = [layer.path for layer in find_hits(mapping.spec, places.unknown) if layer.kind != "expert_parameter"]
    if not strays:
        return mapping
    spec = excluding(mapping.spec, name_targets(strays, places.static.module_paths))
    spec = spec if get_method(mapping.peft_type).exclusion else without_exclusion(spec)
    left_out = f"left out: {', '.join(dict.fromkeys(map(pattern_of, strays)))}, where the entry knew no layer"
    return replace(mapping, **spec.values, reasons=(*mapping.reasons, left_out))


def _hits_all(spec: TargetSpec, hits: Iterable[Layer], static: StaticModel) -> bool:
    """Tell whether every target hits a layer in a block, or one of a model without blocks, and no module besides."""
    modules, excluded = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.exclude_modules or ())
    parameters = TargetMatcher(spec.target_parameters or ())
    paths = {layer.path for layer in hits}
    named = {(parameters if layer.kind == "expert_parameter" else modules).find(layer.path) for layer in hits}
    others = (path for path in static.module_paths if path not in paths)
    return (
        len(named) == len(spec.list_targets())
        and all(layer.depth for layer in hits)
        and not any(modules.find(path) and not excluded.find(path) for path in others)
    )


def _depends_on_indices(hits: Iterable[Layer], places: _Places, entry: Entry) -> bool:
    """Tell whether layers of one place differ: some are dead, or the entry takes some of them alone."""
    if any(slot.live is False and slot.role not in AROUND for slot in entry.architecture.slots):
        return True
    taken = Counter(map(places.of, hits))
    return any(count < len(places.own[place]) for place, count in taken.items())


def _is_proved(entry: Entry, model: nn.Module, static: StaticModel) -> bool:
    return proof_holds(entry.architecture.architecture, model, static.facts.architecture)


def _label_ends(places: _Places, entry: Entry) -> tuple[Layer, ...]:
    """Return the layers that may be heads or embeddings, with their roles: all, in another class than was scanned."""
    own, scanned = places.static.facts.architecture, entry.architecture.architecture
    if own.library == "torch" or own.class_name != scanned.class_name:
        labelled = places.static.label_all()
    else:
        ends = (layer for place, layers in places.own.items() if _may_be_end(places, place) for layer in layers)
        labelled = places.static.label(ends)
    return tuple(
        replace(layer, role="embedding.patch") if _makes_patches(layer, places) else layer for layer in labelled
    )


def _makes_patches(layer: Layer, places: _Places) -> bool:
    """Tell whether a forward showed that what is declared as a head makes patches: the one such role it changes."""
    slots = places.known.get(places.of(layer), ()) if layer.role == "head" else ()
    return any(slot.role == "embedding.patch" for slot in slots)


def _may_be_end(places: _Places, place: _Place) -> bool:
    slots = places.known.get(place)
    is_known_end = slots is None or any(slot.role in ("head", "embedding.token") for slot in slots)
    return is_known_end or not places.own[place][0].depth


def _describe(layers: Iterable[Layer], places: _Places, entry: Entry) -> Iterator[Layer]:
    """Yield layers with what is on record of their slots, and with the evidence of their names."""
    told: dict[_Place, Layer] = {}
    for layer in layers:
        place = places.of(layer)
        slots = [slot for slot in places.known[place] if slot.live is not False] or places.known[place]
        if place not in told or len(slots) > 1:
            (labelled,) = places.static.label((layer,))
            told[place] = _recorded(labelled, slots, entry.architecture.architecture)
        found = told[place]
        yield replace(layer, role=found.role, tower=found.tower, live=found.live, evidence=found.evidence)


def _recorded(labelled: Layer, slots: Sequence[Slot], scanned: Architecture) -> Layer:
    """Return a layer with the role of its slots; where only an index tells them apart, with that of its name if any."""
    roles = dict.fromkeys(slot.role for slot in slots)
    role = labelled.role if labelled.role in roles else next(iter(roles)) if len(roles) == 1 else "other"
    live = True if all(slot.live for slot in slots) else None
    gradient = "; adapters on it get a gradient" if live else ""
    says = f"{' or '.join(roles)} in the scan of {scanned.reference} {scanned.library_version}{gradient}"
    return replace(labelled, role=role, live=live, evidence=(Evidence("registry", says), *labelled.evidence))
