"""The model that a configuration is for: its layers, towers, and names in other versions of its library."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from ...data import read_facts
from ...domain.choosing.stored_layers import StoredLayers
from ...domain.layers import Layer
from ...domain.mappings import ArchitectureDetail, Mapping
from ...domain.methods import TARGETED
from ...domain.patterns import OPEN, list_prefixes, pattern_of
from ...domain.targets import find_hits
from ...domain.versions import Rename, parse_version
from ...domain.vocabulary import EVERYTHING, Kind, Role
from ..mappings.renames import rename_pattern

LINEAR: tuple[Kind, ...] = ("linear", "transposed_linear")


@dataclass(frozen=True)
class Subject:
    """A model, as the registry knows it.

    Attributes:
        detail: What is registered of it.
        is_guess: Whether the configuration may name another one.
    """

    detail: ArchitectureDetail
    is_guess: bool = False

    @property
    def label(self) -> str:
        """Its reference, with the version of the library."""
        architecture = self.detail.architecture
        return f"{architecture.reference} ({architecture.library_version})"

    @cached_property
    def stored(self) -> StoredLayers:
        """Its layers as they are stored."""
        return StoredLayers(self.detail.slots)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers, each with the outermost block around it."""
        return tuple(_in_outer_block(layer) for layer in self.stored.sizes)

    @cached_property
    def mappings(self) -> dict[str, Mapping]:
        """Its mappings of LoRA, by preset."""
        return {one.preset: one for one in self.detail.mappings if one.peft_type == TARGETED}

    @cached_property
    def adaptable(self) -> tuple[Layer, ...]:
        """The layers that the presets adapt, in the towers they are for, without heads, routers and embeddings."""
        paths = {
            layer.path
            for preset, mapping in self.mappings.items()
            if preset != EVERYTHING and mapping.source.kind == "scanner"
            for layer in find_hits(mapping.spec, self.layers)
        }
        return tuple(layer for layer in self.layers if layer.path in paths)

    @cached_property
    def home(self) -> frozenset[str]:
        """The towers that the presets adapt."""
        return frozenset(layer.tower for layer in self.adaptable)

    @cached_property
    def converted(self) -> dict[str, str]:
        """The parameters of experts that PEFT adapts for the names that the experts had one by one."""
        if self.detail.architecture.library != "transformers":
            return {}
        rules = read_facts("training_configs.toml")["converted"]
        return next((rule["names"] for rule in rules if self.detail.architecture.name in rule["types"]), {})

    @cached_property
    def earlier(self) -> tuple[tuple[str, str, str], ...]:
        """The names in older versions: (pattern then, that version, pattern now) of each slot that was renamed."""
        return tuple(self._walk_back())

    def _walk_back(self) -> Iterator[tuple[str, str, str]]:
        steps: defaultdict[tuple[str, str], list[Rename]] = defaultdict(list)
        for one in self.detail.renames:
            steps[one.to_version, one.from_version].append(Rename(one.new, one.old, one.says))
        backwards = sorted(steps, key=lambda step: parse_version(step[0]), reverse=True)
        for slot in self.detail.slots:
            names = {slot.pattern}
            for step in backwards:
                older = {new for name in names for new in rename_pattern(name, steps[step])}
                yield from ((new, step[1], slot.pattern) for new in older - names)
                names = older

    def name_roles(self, name: str) -> frozenset[Role]:
        """Return the roles of this model's layers that a name has in other models."""
        leaf = name.rpartition(".")[2]
        own = {layer.role for layer in self.layers}
        return frozenset(role for known in _roles_by_name().get(leaf, ()) for role in _split(known) if role in own)

    @staticmethod
    def is_layer_name(name: str) -> bool:
        """Return whether a name is that of a layer in other models, and so no slip."""
        return name.rpartition(".")[2] in _roles_by_name()


_PARTS: dict[Any, tuple[Role, ...]] = {
    "attention.qkv": ("attention.qkv", "attention.query", "attention.key", "attention.value"),
    "attention.kv": ("attention.kv", "attention.key", "attention.value", "attention.qkv"),
    "attention.query": ("attention.query", "attention.qkv"),
    "attention.key": ("attention.key", "attention.kv", "attention.qkv"),
    "attention.value": ("attention.value", "attention.kv", "attention.qkv"),
    "mlp.gate_up": ("mlp.gate_up", "mlp.gate", "mlp.up"),
    "mlp.gate": ("mlp.gate", "mlp.gate_up"),
    "mlp.up": ("mlp.up", "mlp.gate_up"),
    "expert.gate_up": ("expert.gate_up", "expert.gate", "expert.up"),
    "expert.gate": ("expert.gate", "expert.gate_up"),
    "expert.up": ("expert.up", "expert.gate_up"),
}
"""Projections that hold the same, joined or apart."""


def _split(role: str) -> tuple[Role, ...]:
    known: Any = role  # the lexicon has roles alone
    return _PARTS.get(role) or (known,)


@cache
def _roles_by_name() -> dict[str, frozenset[str]]:
    """Return the roles of each name in the lexicon."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for belief in read_facts("lexicon.toml")["belief"]:
        for name in belief.get("names", ()):
            found[name].add(belief["role"])
    return {name: frozenset(roles) for name, roles in found.items()}


def _in_outer_block(layer: Layer) -> Layer:
    """Return a layer with the outermost repeated module around it as its block."""
    around = [prefix for prefix in list_prefixes(layer.path)[:-1] if prefix.rpartition(".")[2].isdecimal()]
    return replace(layer, block=around[0], depth=pattern_of(around[0]).count(OPEN)) if around else layer
