"""What stands around a layer: its siblings, its context and the sizes beside it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ...domain.scans import Layer
from ...domain.vocabulary import CONV_KINDS
from ..names.lexicon import PLAIN, Context, Lexicon, load_lexicon
from .model_facts import ModelFacts
from .towers import TowerMap


@dataclass(frozen=True)
class Surroundings:
    """Everything a rule may ask about where a layer stands.

    Attributes:
        module_paths: Every module path of the model.
        layers: Every layer of the model.
    """

    facts: ModelFacts
    towers: TowerMap
    module_paths: tuple[str, ...]
    layers: tuple[Layer, ...]

    @cached_property
    def _children(self) -> dict[str, frozenset[str]]:
        children: dict[str, set[str]] = defaultdict(set)
        for path in (*self.module_paths, *(layer.path for layer in self.layers)):
            parent, _, name = path.rpartition(".")
            children[parent].add(name.lower())
        return {parent: frozenset(names) for parent, names in children.items()}

    @cached_property
    def _reads(self) -> dict[str, frozenset[int]]:
        reads: dict[str, set[int]] = defaultdict(set)
        for layer in self.layers:
            if layer.in_features is not None:
                reads[layer.path.rpartition(".")[0]].add(layer.in_features)
        return {parent: frozenset(sizes) for parent, sizes in reads.items()}

    def siblings(self, layer: Layer) -> frozenset[str]:
        """Return the lower-case names beside a layer, its own included."""
        return self._children.get(layer.path.rpartition(".")[0], frozenset())

    def siblings_read(self, layer: Layer) -> frozenset[int]:
        """Return the input sizes of the layers beside a layer, its own included."""
        return self._reads.get(layer.path.rpartition(".")[0], frozenset())

    @cached_property
    def has_blocks(self) -> bool:
        """Whether any layer stands in a repeated block."""
        return any(layer.depth for layer in self.layers)

    @cached_property
    def first_convolutions(self) -> frozenset[str]:
        """Paths of the first convolution of each tower."""
        first: dict[str, str] = {}
        for layer in self.layers:
            if layer.kind in CONV_KINDS:
                first.setdefault(self.towers.find(layer.path), layer.path)
        return frozenset(first.values())

    @property
    def lexicon(self) -> Lexicon:
        """The lexicon in force."""
        return load_lexicon()

    def context(self, layer: Layer) -> Context | None:
        """Return the context of a layer: by its owner's class, then by its path from the nearest segment outwards."""
        names = tuple(_names_around(layer))
        if names not in self._contexts:
            self._contexts[names] = self.lexicon.context_of(names)
        return self._contexts[names]

    @cached_property
    def _contexts(self) -> dict[tuple[str, ...], Context | None]:
        """Contexts found so far; repeated blocks have the same names around them."""
        return {}

    def context_name(self, layer: Layer) -> str:
        """Return the name of a layer's context, ``plain`` if no known word stands around it."""
        context = self.context(layer)
        return context.name if context else PLAIN

    def named(self, layer: Layer) -> tuple[str, str]:
        """Return the last two segments of a layer's path that are no indices: its name and its parent's."""
        segments = [segment for segment in layer.path.split(".") if not segment.isdecimal()] or [layer.path]
        name, parent = segments[-1], segments[-2] if len(segments) > 1 else ""
        return name, parent


def _names_around(layer: Layer) -> Iterator[str]:
    yield layer.owner
    yield from (segment for segment in reversed(layer.path.split(".")[:-1]) if not segment.isdecimal())
