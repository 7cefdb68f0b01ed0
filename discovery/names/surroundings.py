"""The surroundings of a layer: its siblings, its context and the sizes beside it."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS
from ..facts.model_facts import ModelFacts
from ..facts.towers import TowerMap
from .lexicon import PLAIN, Context, Lexicon, load_lexicon


@dataclass(frozen=True)
class Surroundings:
    """The facts that a rule may use about where a layer stands.

    Attributes:
        module_paths: Every module path of the model.
        layers: Every layer of the model.
    """

    facts: ModelFacts
    towers: TowerMap
    module_paths: tuple[str, ...]
    layers: tuple[Layer, ...]

    @cached_property
    def children(self) -> dict[str, set[str]]:
        """Lower-case names of the children of each module."""
        children: dict[str, set[str]] = defaultdict(set)
        for path in (*self.module_paths, *(layer.path for layer in self.layers)):
            parent, _, name = path.rpartition(".")
            children[parent].add(name.lower())
        return dict(children)

    @cached_property
    def input_sizes(self) -> dict[str, set[int]]:
        """Input sizes of the layers in each module."""
        sizes: dict[str, set[int]] = defaultdict(set)
        for layer in self.layers:
            if layer.in_features is not None:
                sizes[layer.path.rpartition(".")[0]].add(layer.in_features)
        return dict(sizes)

    def siblings(self, layer: Layer) -> frozenset[str]:
        """Return the lower-case names beside a layer, its own included."""
        return frozenset(self.children.get(layer.path.rpartition(".")[0], ()))

    def sibling_inputs(self, layer: Layer) -> frozenset[int]:
        """Return the input sizes of the layers beside a layer, its own included."""
        return frozenset(self.input_sizes.get(layer.path.rpartition(".")[0], ()))

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
        """The packaged lexicon."""
        return load_lexicon()

    def context(self, layer: Layer) -> Context | None:
        """Return the context of a layer: by its owner's class, then by its path from the nearest segment outwards."""
        parents = reversed(layer.path.split(".")[:-1])
        names = (layer.owner, *(segment for segment in parents if not segment.isdecimal()))
        if names not in self._contexts:
            self._contexts[names] = self.lexicon.context_of(names)
        return self._contexts[names]

    @cached_property
    def _contexts(self) -> dict[tuple[str, ...], Context | None]:
        """Cache of contexts by the names around a layer, which repeated blocks share."""
        return {}

    def context_name(self, layer: Layer) -> str:
        """Return the name of a layer's context, ``plain`` if no known word is around it."""
        context = self.context(layer)
        return context.name if context else PLAIN

    def name_and_parent(self, layer: Layer) -> tuple[str, str]:
        """Return the last two segments of a layer's path that are no indices: its name and its parent's."""
        segments = [segment for segment in layer.path.split(".") if not segment.isdecimal()] or [layer.path]
        return segments[-1], segments[-2] if len(segments) > 1 else ""
