"""Find the registry's entry for a model, and match it with the model's own layers, without a forward."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from math import gcd
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ..discovery import StaticModel, proof_holds
from ..domain.architectures import Architecture
from ..domain.layers import Evidence, Layer, Slot
from ..domain.mappings import ArchitectureDetail, Mapping
from ..domain.methods import get_method
from ..domain.patterns import name_targets, pattern_of
from ..domain.targets import TargetMatcher, TargetSpec, excluding, find_hits, resolve_blocks, without_exclusion
from ..domain.vocabulary import Kind, Role, Tower
from ..errors import UnknownArchitecture
from ..lookups import open_knowledge
from ..registry import sqlite_file
from ..settings import Settings

AROUND: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles of the layers that a task class adds to its base model or lacks; a forward does not change them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping of the registry and its architecture."""

    mapping: Mapping
    architecture: ArchitectureDetail


class _Query(NamedTuple):
    """The arguments of ``Registry.find``."""

    name: str
    peft_type: str
    preset: str
    library: str
    version: str | None


def find_entry(architecture: Architecture, peft_type: str, preset: str) -> Entry | None:
    """Return the registry's entry for an architecture by its name, read once per state of the registry's file.

    Raises:
        DatabaseUnusable: If the registry cannot be read.
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If there is no such preset.
    """
    settings = Settings.from_environment()
    state = None if settings.url else _read_state(sqlite_file(settings.database_url))
    find = _find.__wrapped__ if state is None else _find
    library, version = architecture.library, architecture.library_version
    return find(settings, state, _Query(architecture.name, peft_type, preset, library, version))


@lru_cache(maxsize=64)
def _find(settings: Settings, state: object, query: _Query) -> Entry | None:  # noqa: ARG001 - a part of the cache's key
    with open_knowledge(settings) as known:
        mapping = known.find(*query)
        if mapping is None:
            return None
        try:
            return Entry(mapping, known.get_architecture(query.library, query.name))
        except UnknownArchitecture:  # removed in between
            return None


def _read_state(file: Path | None) -> tuple[tuple[int, ...], ...] | None:
    """Return identity, size and time of last change of an SQLite file and of its write-ahead log.

    Empty if there is no file yet, and the packaged registry is read; ``None`` if a server holds the registry.
    """
    if file is None:
        return None
    states = []
    for each in (file, file.with_name(f"{file.name}-wal")):
        with suppress(OSError):
            status = each.stat()
            states.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(states)


@dataclass(frozen=True, slots=True)
class Fit:
    """An entry narrowed to one model.

    Attributes:
        mapping: The entry with the heads of this model; layers that its architecture does not have are excluded.
        layers: The layers that it matches, with role and evidence from the registry's slots.
        frozen: What was made anew and stays as it was initialised, in words.
    """

    mapping: Mapping
    layers: tuple[Layer, ...]
    frozen: tuple[str, ...]


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
    if not aligned.are_same and not aligned.are_alike:
        return None
    strays = [layer for layer in find_hits(entry.mapping.spec, aligned.unknown) if layer.kind != "expert_parameter"]
    mapping = leave_out(entry.mapping, [layer.path for layer in strays], static.module_paths)
    matched = find_hits(mapping.spec, static.layers)
    if not aligned.are_same and not aligned.matches_all(mapping.spec, matched):
        return None
    if aligned.depends_on_indices(matched):
        scanned, own = entry.architecture.architecture, static.facts.architecture
        if not (aligned.are_same and proof_holds(scanned, model, own)):
            return None
    saved = static.find_saved(aligned.label_ends())
    named = replace(resolve_blocks(mapping.spec, [x.path for x in static.layers]), modules_to_save=saved.names or None)
    reasons = tuple(
        dict.fromkeys((*mapping.reasons, *saved.reasons))
    )  # the entry has those that hold for its own class
    mapping = replace(mapping, **named.values, reasons=reasons)
    return Fit(mapping, tuple(aligned.describe(matched)), saved.frozen)


def leave_out(mapping: Mapping, strays: Sequence[str], module_paths: Sequence[str]) -> Mapping:
    """Exclude layers that an entry matches where its architecture had none, such as the pooler of another task class.

    Args:
        mapping: The entry.
        strays: Paths of these layers; without any, the entry stays as it is.
        module_paths: Paths of all modules of the model.
    """
    if not strays:
        return mapping
    spec = excluding(mapping.spec, name_targets(strays, module_paths))
    spec = spec if get_method(mapping.peft_type).exclusion else without_exclusion(spec)
    left_out = f"left out: {', '.join(dict.fromkeys(map(pattern_of, strays)))}, where the entry knew no layer"
    return replace(mapping, **spec.values, reasons=(*mapping.reasons, left_out))


class _SlotKey(NamedTuple):
    """Identify the layers that a slot counts."""

    tower: Tower
    kind: Kind
    pattern: str


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

    @cached_property
    def are_alike(self) -> bool:
        """Whether the model differs from the scanned one only in depth and around its blocks."""
        missing = (slot for key, slots in self.known.items() if key not in self.own for slot in slots)
        if any(slot.role not in AROUND or (slot.role == "norm" and "*" in slot.pattern) for slot in missing):
            return False
        ratios: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
        for key, (own, known) in self.counts.items():
            divisor = gcd(own, known)
            ratios[key.pattern.rpartition("*")[0]].add((own // divisor, known // divisor))
        if any(len(found) > 1 for found in ratios.values()):
            return False
        if self._adapts_norms:  # also those outside the blocks
            return not self.unknown
        return all(map(self._is_around, self.unknown))

    @property
    def _adapts_norms(self) -> bool:
        return get_method(self.entry.mapping.peft_type).family == "LN_TUNING"

    def _is_around(self, layer: Layer) -> bool:
        """Return whether no preset adapts a layer, independent of a forward."""
        (labelled,) = self.static.label((layer,))
        if labelled.depth:
            return labelled.role == "head"
        towers, layers = self.static.towers, self.static.layers
        has_blocks = any(other.depth and towers.find(other.path) == labelled.tower for other in layers)
        return has_blocks or labelled.role in AROUND

    def matches_all(self, spec: TargetSpec, matched: Iterable[Layer]) -> bool:
        """Return whether every target matches known layers, all of them in blocks, and no other module."""
        spec = resolve_blocks(spec, [layer.path for layer in self.static.layers])
        modules, excluded = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.exclude_modules or ())
        parameters = TargetMatcher(spec.target_parameters or ())
        paths = {layer.path for layer in matched}
        named = {(parameters if layer.kind == "expert_parameter" else modules).find(layer.path) for layer in matched}
        others = (path for path in self.static.module_paths if path not in paths)
        return (
            len(named) == len(spec.list_targets())
            and all(layer.depth and self.key_of(layer) in self.known for layer in matched)
            and not any(modules.find(path) and not excluded.find(path) for path in others)
        )

    def depends_on_indices(self, matched: Iterable[Layer]) -> bool:
        """Return whether layers of one slot differ: some are dead, or the entry matches only some of them."""
        apart = AROUND - {"norm"} if self._adapts_norms else AROUND
        slots = self.entry.architecture.slots
        if any(slot.live is False and not slot.bypassed and slot.role not in apart for slot in slots):
            return True
        taken = Counter(map(self.key_of, matched))
        return any(count < len(self.own[key]) for key, count in taken.items())

    def label_ends(self) -> tuple[Layer, ...]:
        """Return the layers that may be heads or token embeddings, with roles; all if their class was not scanned."""
        own, scanned = self.static.facts.architecture, self.entry.architecture.architecture
        if own.library == "torch" or own.class_name != scanned.class_name:
            labelled = self.static.label_all()
        else:
            groups = (layers for key, layers in self.own.items() if not layers[0].depth or self._has_ends(key))
            labelled = self.static.label(chain.from_iterable(groups))
        # A declared head that makes patches: the only declared role that a forward changes.
        patches = {key for key in self.known if self._has_role(key, "embedding.patch")}
        return tuple(
            replace(layer, role="embedding.patch") if layer.role == "head" and self.key_of(layer) in patches else layer
            for layer in labelled
        )

    def _has_ends(self, key: _SlotKey) -> bool:
        """Return whether the layers of a slot may be heads or token embeddings; so may those that have no slot."""
        return key not in self.known or self._has_role(key, "head", "embedding.token")

    def _has_role(self, key: _SlotKey, *roles: Role) -> bool:
        return any(slot.role in roles for slot in self.known[key])

    def describe(self, matched: Iterable[Layer]) -> Iterator[Layer]:
        """Yield layers with role and evidence of their slots, followed by the static evidence."""
        described: dict[_SlotKey, Layer] = {}
        for layer in matched:
            key = self.key_of(layer)
            slots = [slot for slot in self.known[key] if slot.live is not False] or self.known[key]
            if key not in described or len(slots) > 1:
                (labelled,) = self.static.label((layer,))
                described[key] = _recorded(labelled, slots, self.entry.architecture.architecture)
            found = described[key]
            yield replace(layer, role=found.role, tower=found.tower, live=found.live, evidence=found.evidence)


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


def _recorded(labelled: Layer, slots: Sequence[Slot], scanned: Architecture) -> Layer:
    """Return a layer with the role of its slots; if they have several, with its static role if that is one of them."""
    roles = dict.fromkeys(slot.role for slot in slots)
    role = labelled.role if labelled.role in roles else next(iter(roles)) if len(roles) == 1 else "other"
    live = True if all(slot.live for slot in slots) else None
    gradient = "; adapters on it get a gradient" if live else ""
    says = f"{' or '.join(roles)} in the scan of {scanned.reference} {scanned.library_version}{gradient}"
    return replace(labelled, role=role, live=live, evidence=(Evidence("registry", says), *labelled.evidence))
