"""The surroundings of a layer: the facts that a rule about static roles may use."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ...domain.layers import Layer
from ...domain.patterns import list_prefixes
from ...domain.vocabulary import CONV_KINDS, Role
from ..facts.model_facts import ModelFacts
from ..facts.towers import TowerMap, is_below
from .lexicon import PLAIN, Belief, Context, context_of, load_lexicon

StaticVerdict = tuple[Role, str, str]
"""(role, source of the evidence, reason)."""

DENSE_KINDS = ("linear", "transposed_linear")
PROJECTOR_KINDS = (*DENSE_KINDS, *CONV_KINDS)


@dataclass(frozen=True)
class Surroundings:
    """The facts that a rule may use about where a layer stands.

    Attributes:
        module_paths: Every module path of the model.
        layers: Every layer of the model.
        has_others: Whether much of the model is of a kind that no adapter is proposed for, such as an LSTM.
    """

    facts: ModelFacts
    towers: TowerMap
    module_paths: tuple[str, ...]
    layers: tuple[Layer, ...]
    has_others: bool = False

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

    def context(self, layer: Layer) -> Context | None:
        """Return the context of a layer: by its owner's class, then by its path from the nearest segment outwards.

        The class of a whole model is named for its parts: a layer of an ``ExpertChoice`` is no expert.
        """
        parents = reversed(layer.path.split(".")[:-1])
        context = context_of((layer.owner, *(segment for segment in parents if not segment.isdecimal())))
        return None if context and context.anywhere and "." not in layer.path else context

    def context_name(self, layer: Layer) -> str:
        """Return the name of a layer's context, ``plain`` if no known word is around it."""
        context = self.context(layer)
        return context.name if context else PLAIN

    def name_and_parent(self, layer: Layer) -> tuple[str, str]:
        """Return the last two segments of a layer's path that are no indices: its name and its parent's."""
        segments = [segment for segment in layer.path.split(".") if not segment.isdecimal()] or [layer.path]
        return segments[-1], segments[-2] if len(segments) > 1 else ""

    def find_belief(self, layer: Layer) -> tuple[str, Belief] | None:
        """Return the lexicon's belief about a layer with the name it is about: a bare wrapper's is its parent's."""
        if layer.kind == "other":
            return None
        name, parent = self.name_and_parent(layer)
        names = (parent, name) if name.lower() in load_lexicon().wrappers else (name,)
        for candidate in names:
            belief = load_lexicon().find(candidate, self.context_name(layer), parent, self.siblings(layer))
            if belief is not None:
                return candidate, belief
        return None

    # --- outside the pretrained model ----------------------------------------------------------------------------

    def explain_outside(self, layer: Layer) -> str | None:
        """Return why a layer was made anew: the base model, or the library's model, does not hold it; else ``None``.

        A part between towers joins them, and is no head.
        """
        if self.towers.find_projector(layer.path) is not None:
            return None
        for path in self.facts.list_paths(layer.path):
            base = self.find_base_beside(path)
            if base is not None:
                return f"the base model {base!r} does not hold it"
        if self.facts.is_fresh(layer.path) and layer.kind in PROJECTOR_KINDS:
            return f"it stands outside {', '.join(map(repr, self.facts.library_models))}"
        return None

    def find_base_beside(self, path: str) -> str | None:
        """Return the base of the task model that a path belongs to, if it stands outside of it.

        A task model is its base model and a head. So are models inside the model that declare an output; a part with
        a configuration of its own is no head.
        """
        models = self.facts.sub_models
        owners = [model for model in models if is_below(path, model.path)]
        for model in owners:
            has_base = model.base_path != model.path and is_below(model.base_path, model.path)
            if model.config_class != owners[-1].config_class or not has_base or is_below(path, model.base_path):
                continue
            is_inside = any(other is not model and is_below(model.path, other.path) for other in models)
            if model.heads or model.outputs or not is_inside:
                return model.base_path
        return None

    def leads_to_network(self, layer: Layer) -> bool:
        """Return whether a layer outside the pretrained model belongs to a network there, or comes before its end."""
        if self.find_network(layer):
            return True
        position = self.positions[layer.path]
        return any(position < end and is_below(layer.path, around) for around, end in self._network_ends.items())

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of each layer in the model."""
        return {layer.path: position for position, layer in enumerate(self.layers)}

    @cached_property
    def _network_ends(self) -> dict[str, int]:
        """The position of the last layer of each network outside the pretrained model, by the module around it.

        In a user's own module a head may well be registered before a network, so only the module of its list counts.
        """
        ends: dict[str, int] = {}
        for position, layer in enumerate(self.layers):
            block = self.find_network(layer) if self.explain_outside(layer) else None
            if block:
                around = block.rpartition(".")[0].rpartition(".")[0]
                ends[around if self.facts.library_models else ""] = position
        return ends

    # --- networks inside blocks ----------------------------------------------------------------------------------

    @cached_property
    def blocks(self) -> dict[str, list[Layer]]:
        """The layers below each repeated block, those of inner blocks included."""
        inside: dict[str, list[Layer]] = {layer.block: [] for layer in self.layers if layer.block}
        for layer in self.layers:
            for block in list_prefixes(layer.block or ""):
                if block in inside:
                    inside[block].append(layer)
        return inside

    @cached_property
    def networks(self) -> frozenset[str]:
        """Blocks of a network: with an attention, a mixer or experts, or with a norm and a feed-forward layer.

        Outside a library's model also with a norm and a convolution: the decoder of a segmentation model. So are blocks
        of ConvNeXt, and those with a norm in a list with others.
        """
        found: set[str] = set()
        for block, layers in self.blocks.items():
            families = {family for layer in layers for family in self._families_of(layer)}
            has_convolution = self.facts.is_fresh(block) and any(layer.kind in CONV_KINDS for layer in layers)
            is_plain = "norm" in families and ("mlp" in families or has_convolution)
            if is_plain or families & {"attention", "mixer", "expert"} or _is_convnext(layers):
                found.add(block)
        return frozenset(found | self._list_beside(found))

    def _list_beside(self, found: set[str]) -> set[str]:
        """Return the blocks with a norm in a list with one of those found."""
        lists = {block.rpartition(".")[0] for block in found}
        normed = (block for block, layers in self.blocks.items() if any(layer.kind == "norm" for layer in layers))
        return {block for block in normed if block.rpartition(".")[0] in lists}

    def _families_of(self, layer: Layer) -> Iterator[str]:
        if layer.kind in ("norm", "embedding"):
            yield layer.kind
            return
        found = self.find_belief(layer)
        yield from (found[1].role.partition(".")[0],) if found else ()
        yield "attention" if layer.kind == "multihead_attention" else self.context_name(layer)

    def find_network(self, layer: Layer) -> str | None:
        """Return the outermost block of a network around a layer, or ``None``."""
        return next((block for block in list_prefixes(layer.block or "") if block in self.networks), None)


def _is_convnext(layers: list[Layer]) -> bool:
    """Return whether a block has a depthwise convolution and two layers that widen and narrow (arXiv:2201.03545)."""
    has_depthwise = any(layer.kind in CONV_KINDS and 1 < layer.groups == layer.in_features for layer in layers)
    sizes = {(layer.in_features or 0, layer.out_features or 0) for layer in layers if layer.kind in PROJECTOR_KINDS}
    return has_depthwise and any(wide > narrow and (wide, narrow) in sizes for narrow, wide in sizes)
