"""The model that a configuration is for: its layers, towers, and names in other versions of its library."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ...data import read_facts
from ...domain.choosing.stored_layers import StoredLayers
from ...domain.explaining.role_names import name_roles
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
        return name_roles(name, {layer.role for layer in self.layers})


def _in_outer_block(layer: Layer) -> Layer:
    """Return a layer with the outermost repeated module around it as its block."""
    around = [prefix for prefix in list_prefixes(layer.path)[:-1] if prefix.rpartition(".")[2].isdecimal()]
    return replace(layer, block=around[0], depth=pattern_of(around[0]).count(OPEN)) if around else layer
