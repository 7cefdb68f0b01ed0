"""Match a registry entry with a model's own layers, without a forward."""

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
from .registry_entry import Entry

AROUND: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles of the layers that a task class adds to its base model or lacks; a forward does not change them."""


class _SlotKey(NamedTuple):
    """Identify the layers that a slot counts."""

    tower: Tower
    kind: Kind
    pattern: str


@dataclass(frozen=True, slots=True)
class Fit:
    """An entry narrowed to one model.

    Attributes:
        mapping: The entry; layers that its architecture does not have are excluded.
        layers: The layers that it matches, with role and evidence from the registry's slots.
        modules_to_save: The heads of this model to train in full.
    """

    mapping: Mapping
    layers: tuple[Layer, ...]
    modules_to_save: tuple[str, ...] | None


def fit(entry: Entry, model: nn.Module, static: StaticModel) -> Fit | None:
    """Return an entry narrowed to a model; ``None`` if only a forward can show whether it fits.

    It fits if it is verified and the model has the blocks it was verified on, in any number, and around them only
    layers that no preset adapts. If single layers of a slot matter (dead ones, or targets by index), the proof must be
    of the same class, version and configuration.
    """
    verification = entry.mapping.verification
    if verification is None or verification.status not in ("live", "unproven"):
        return None
    aligned = _Alignment(entry, static)
    if not aligned.are_same and not _is_alike(aligned, entry):
        return None
    mapping = _without_strays(entry.mapping, aligned)
    matched = find_hits(mapping.spec, static.layers)
    if not aligned.are_same and not _matches_all(mapping.spec, matched, aligned):
        return None
    if _depends_on_indices(matched, aligned, entry) and not (aligned.are_same and _is_proved(entry, model, static)):
        return None
    saved = static.find_saved(_label_ends(aligned, entry)) or None
    return Fit(mapping, tuple(_describe(matched, aligned, entry)), saved)


@dataclass(frozen=True)
class _Alignment:
    """The layers of a model and the slots of an entry, by slot key; slots are renamed to the model's own paths."""

    entry: Entry
    static: StaticModel

    @cached_property
    def own(self) -> dict[_SlotKey, list[Layer]]:
        """The layers of the model."""
        found: defaultdict[_SlotKey, list[Layer]] = defaultdict(list)
        for layer in self.static.layers:
            found[self.key_of(layer)].append(layer)
        return dict(found)

    def key_of(self, layer: Layer) -> _SlotKey:
        """Return the slot key of a layer."""
        return _SlotKey(self.static.towers.find(layer.path), layer.kind, pattern_of(layer.path))

    @cached_property
    def known(self) -> dict[_SlotKey, list[Slot]]:
        """The slots of the entry; the paths of a base model are shorter than those of a class with a head."""
        slots = self.entry.architecture.slots
        cut, put = _find_prefixes([key.pattern for key in self.own], [slot.pattern for slot in slots])
        found: defaultdict[_SlotKey, list[Slot]] = defaultdict(list)
        for slot in slots:
            found[_SlotKey(slot.tower, slot.kind, put + slot.pattern.removeprefix(cut))].append(slot)
        return dict(found)

    @cached_property
    def counts(self) -> dict[_SlotKey, tuple[int, int]]:
        """Numbers of layers in the model and in the entry, by keys that both have."""
        both = ((key, slots) for key, slots in self.known.items() if key in self.own)
        return {key: (len(self.own[key]), sum(slot.count for slot in slots)) for key, slots in both}

    @cached_property
    def unknown(self) -> tuple[Layer, ...]:
        """The layers of the model where the entry has no slot."""
        return tuple(layer for key, layers in self.own.items() if key not in self.known for layer in layers)

    @cached_property
    def are_same(self) -> bool:
        """Whether the model has the layers of the entry, one for one."""
        is_whole = len(self.counts) == len(self.own) == len(self.known)
        return is_whole and all(own == known for own, known in self.counts.values())


def _find_prefixes(own: Iterable[str], known: Iterable[str]) -> tuple[str, str]:
    """Return the prefixes to cut from and to add to the known patterns so that those in blocks match."""
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


def _is_alike(aligned: _Alignment, entry: Entry) -> bool:
    """Return whether a model differs from the scanned one only in depth and around its blocks."""
    missing = (slot for key, slots in aligned.known.items() if key not in aligned.own for slot in slots)
    if any(slot.role not in AROUND or (slot.role == "norm" and "*" in slot.pattern) for slot in missing):
        return False
    ratios: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for key, (own, known) in aligned.counts.items():
        divisor = gcd(own, known)
        ratios[key.pattern.rpartition("*")[0]].add((own // divisor, known // divisor))
    if any(len(found) > 1 for found in ratios.values()):
        return False
    if get_method(entry.mapping.peft_type).family == "LN_TUNING":  # adapts norms outside the blocks, too
        return not aligned.unknown
    return all(_is_around(layer, aligned.static) for layer in aligned.unknown)


def _is_around(layer: Layer, static: StaticModel) -> bool:
    """Return whether no preset adapts a layer, independent of a forward."""
    (labelled,) = static.label((layer,))
    if labelled.depth:
        return labelled.role == "head"
    has_blocks = any(other.depth and static.towers.find(other.path) == labelled.tower for other in static.layers)
    return has_blocks or labelled.role in AROUND


def _without_strays(mapping: Mapping, aligned: _Alignment) -> Mapping:
    """Exclude layers that an entry matches without a slot for them, such as the pooler of another task class."""
    strays = [layer.path for layer in find_hits(mapping.spec, aligned.unknown) if layer.kind != "expert_parameter"]
    if not strays:
        return mapping
    spec = excluding(mapping.spec, name_targets(strays, aligned.static.module_paths))
    spec = spec if get_method(mapping.peft_type).exclusion else without_exclusion(spec)
    left_out = f"left out: {', '.join(dict.fromkeys(map(pattern_of, strays)))}, where the entry knew no layer"
    return replace(mapping, **spec.values, reasons=(*mapping.reasons, left_out))


def _matches_all(spec: TargetSpec, matched: Iterable[Layer], aligned: _Alignment) -> bool:
    """Return whether every target matches known layers, all of them in blocks, and no other module."""
    modules, excluded = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.exclude_modules or ())
    parameters = TargetMatcher(spec.target_parameters or ())
    paths = {layer.path for layer in matched}
    named = {(parameters if layer.kind == "expert_parameter" else modules).find(layer.path) for layer in matched}
    others = (path for path in aligned.static.module_paths if path not in paths)
    return (
        len(named) == len(spec.list_targets())
        and all(layer.depth and aligned.key_of(layer) in aligned.known for layer in matched)
        and not any(modules.find(path) and not excluded.find(path) for path in others)
    )


def _depends_on_indices(matched: Iterable[Layer], aligned: _Alignment, entry: Entry) -> bool:
    """Return whether layers of one slot differ: some are dead, or the entry matches only some of them."""
    adapts_norms = get_method(entry.mapping.peft_type).family == "LN_TUNING"
    apart = AROUND - {"norm"} if adapts_norms else AROUND
    if any(slot.live is False and not slot.bypassed and slot.role not in apart for slot in entry.architecture.slots):
        return True
    taken = Counter(map(aligned.key_of, matched))
    return any(count < len(aligned.own[key]) for key, count in taken.items())


def _is_proved(entry: Entry, model: nn.Module, static: StaticModel) -> bool:
    return proof_holds(entry.architecture.architecture, model, static.facts.architecture)


def _label_ends(aligned: _Alignment, entry: Entry) -> tuple[Layer, ...]:
    """Return the layers that may be heads or token embeddings, with roles; all layers if the class was not scanned."""
    own, scanned = aligned.static.facts.architecture, entry.architecture.architecture
    if own.library == "torch" or own.class_name != scanned.class_name:
        labelled = aligned.static.label_all()
    else:
        ends = (layer for key, layers in aligned.own.items() if _may_be_end(aligned, key) for layer in layers)
        labelled = aligned.static.label(ends)
    return tuple(
        replace(layer, role="embedding.patch") if _makes_patches(layer, aligned) else layer for layer in labelled
    )


def _makes_patches(layer: Layer, aligned: _Alignment) -> bool:
    """Return whether the scan found that a declared head makes patches, the only declared role a forward changes."""
    slots = aligned.known.get(aligned.key_of(layer), ()) if layer.role == "head" else ()
    return any(slot.role == "embedding.patch" for slot in slots)


def _may_be_end(aligned: _Alignment, key: _SlotKey) -> bool:
    slots = aligned.known.get(key)
    is_known_end = slots is None or any(slot.role in ("head", "embedding.token") for slot in slots)
    return is_known_end or not aligned.own[key][0].depth


def _describe(layers: Iterable[Layer], aligned: _Alignment, entry: Entry) -> Iterator[Layer]:
    """Yield layers with role and evidence of their slots, followed by the static evidence."""
    described: dict[_SlotKey, Layer] = {}
    for layer in layers:
        key = aligned.key_of(layer)
        slots = [slot for slot in aligned.known[key] if slot.live is not False] or aligned.known[key]
        if key not in described or len(slots) > 1:
            (labelled,) = aligned.static.label((layer,))
            described[key] = _recorded(labelled, slots, entry.architecture.architecture)
        found = described[key]
        yield replace(layer, role=found.role, tower=found.tower, live=found.live, evidence=found.evidence)


def _recorded(labelled: Layer, slots: Sequence[Slot], scanned: Architecture) -> Layer:
    """Return a layer with the role of its slots; if they have several, with its static role if that is one of them."""
    roles = dict.fromkeys(slot.role for slot in slots)
    role = labelled.role if labelled.role in roles else next(iter(roles)) if len(roles) == 1 else "other"
    live = True if all(slot.live for slot in slots) else None
    gradient = "; adapters on it get a gradient" if live else ""
    says = f"{' or '.join(roles)} in the scan of {scanned.reference} {scanned.library_version}{gradient}"
    return replace(labelled, role=role, live=live, evidence=(Evidence("registry", says), *labelled.evidence))
