"""Static roles: infer the role of each layer from names, shapes and declared structure.

Each rule is one belief: it looks at one layer and its surroundings and returns a role with its reason, or ``None``.
The first rule that returns a role decides.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from ...domain.layers import Evidence, Layer
from ...domain.vocabulary import CONV_KINDS, Role
from ..facts.model_facts import ModelFacts
from ..facts.towers import TowerMap, is_below
from .lexicon import PLAIN, Context, context_of, load_lexicon

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

    def context(self, layer: Layer) -> Context | None:
        """Return the context of a layer: by its owner's class, then by its path from the nearest segment outwards."""
        parents = reversed(layer.path.split(".")[:-1])
        return context_of((layer.owner, *(segment for segment in parents if not segment.isdecimal())))

    def context_name(self, layer: Layer) -> str:
        """Return the name of a layer's context, ``plain`` if no known word is around it."""
        context = self.context(layer)
        return context.name if context else PLAIN

    def name_and_parent(self, layer: Layer) -> tuple[str, str]:
        """Return the last two segments of a layer's path that are no indices: its name and its parent's."""
        segments = [segment for segment in layer.path.split(".") if not segment.isdecimal()] or [layer.path]
        return segments[-1], segments[-2] if len(segments) > 1 else ""


def label_layers(around: Surroundings) -> tuple[Layer, ...]:
    """Return the layers with role, tower and evidence."""
    labelled = tuple(label_layer(layer, around) for layer in around.layers)
    return last_dense_layer_is_the_head(labelled, around)


def label_layer(layer: Layer, around: Surroundings) -> Layer:
    """Return one layer with role, tower and evidence; the last layer of a user's own module is no head yet."""
    verdict = next((found for rule in RULES if (found := rule(layer, around)) is not None), None)
    role, by, reason = verdict or ("other", "names", f"nothing known says what {layer.name!r} does")
    live = False if around.context_name(layer) == "indexer" else None
    tower = around.towers.find(layer.path)
    return replace(layer, tower=tower, live=live, role=role, evidence=(Evidence(by, reason),))


def norm_normalises(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label a norm by its class."""
    del around
    return ("norm", "structure", f"its class {layer.class_name} normalises") if layer.kind == "norm" else None


def declared_head_is_the_head(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label as head each layer that a model, or a model inside it, declares as output embeddings or classifier."""
    inside = (model.heads for model in around.facts.sub_models)
    for path in around.facts.task_heads.union(around.facts.language_heads, *inside):
        if is_below(layer.path, path):
            return "head", "structure", f"the model declares {path!r} as its output"
    return None


def beyond_the_base_model_is_the_head(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label as head each layer outside the base model, because a task model is its base model and a head.

    Applies to models inside the model that declare an output too; a part with a configuration of its own is no head.
    """
    owners = [model for model in around.facts.sub_models if is_below(layer.path, model.path)]
    if not owners or around.towers.find_projector(layer.path) is not None:
        return None
    for model in owners:
        has_base = model.base_path != model.path and is_below(model.base_path, model.path)
        if model.config_class != owners[-1].config_class or not has_base or is_below(layer.path, model.base_path):
            continue
        is_inside = any(other is not model and is_below(model.path, other.path) for other in around.facts.sub_models)
        if model.heads or model.outputs or not is_inside:
            return "head", "structure", f"the base model {model.base_path!r} does not hold it"
    return None


def embedding_looks_up(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label an embedding as one of tokens, or of positions if it is named for them."""
    del around
    if layer.kind != "embedding":
        return None
    belief = load_lexicon().find(layer.name, "embedding", "", frozenset())
    if belief is not None:
        return belief.role, "names", belief.reason
    return "embedding.token", "structure", "its class looks up rows by index"


def layer_between_towers_projects(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label the layers of a part that joins towers as projectors.

    Layers in repeated blocks keep the role they have in any block, unless the projector is that list of blocks: one
    per depth. So do the projections of an attention; their tower says where they stand.
    """
    if layer.kind not in PROJECTOR_KINDS:
        return None
    projector = around.towers.find_projector(layer.path)
    if projector is None or (layer.depth and (layer.block or "").rpartition(".")[0] != projector):
        return None
    named = lexicon_knows_the_name(layer, around) if around.context_name(layer) == "attention" else None
    if named is not None and named[0].startswith("attention."):
        return named
    return "projector", "structure", f"it stands in {projector!r}, which joins the towers"


def first_convolution_makes_patches(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label a tower's first convolution if it precedes the blocks and its kernel covers more than one position."""
    if layer.kind not in CONV_KINDS or layer.depth or not around.has_blocks or max(layer.shape[2:]) == 1:
        return None
    if layer.path not in around.first_convolutions:
        return None
    return "embedding.patch", "structure", "it is its tower's first convolution, which turns raw input into patches"


def router_stands_beside_experts(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label a layer with a router's name beside experts or inside a router, or one named for routing alone."""
    name, parent = around.name_and_parent(layer)
    beside_experts = any("expert" in sibling for sibling in around.siblings(layer) - {name.lower()})
    in_router = "router" in f"{parent} {layer.owner}".lower() or "gating" in layer.owner.lower()
    if name.lower() in load_lexicon().routers and (beside_experts or in_router):
        return "moe.router", "structure", f"{name!r} stands {'beside experts' if beside_experts else 'in a router'}"
    if name.lower() == "router" or (layer.out_features == 1 and name.lower().endswith("expert_gate")):
        return "moe.router", "names", f"{name!r} is named for routing"
    return None


def multihead_attention_is_fused(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label ``nn.MultiheadAttention``, which holds query, key and value in one weight."""
    del around
    if layer.kind != "multihead_attention":
        return None
    return "attention.qkv", "structure", "nn.MultiheadAttention projects query, key and value with one weight"


def indexer_and_squeeze_layers_are_left_alone(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Exclude layers in contexts that no adapter should target, regardless of their own names."""
    context = around.context(layer)
    if context is None or context.name not in ("indexer", "squeeze"):
        return None
    return "other", "names", context.reason


def wide_layer_twice_its_reader_is_gate_and_up(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label a feed-forward layer twice as wide as the input of its sibling: it holds gate and up in one weight."""
    if layer.kind not in DENSE_KINDS or around.context_name(layer) != "mlp" or not layer.out_features:
        return None
    sibling_sizes = around.sibling_inputs(layer) - {layer.in_features}
    if layer.out_features % 2 or layer.out_features // 2 not in sibling_sizes:
        return None
    reason = f"it writes {layer.out_features} features, twice what the layer beside it reads"
    return "mlp.gate_up", "structure", reason


def lexicon_knows_the_name(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Look the layer's name up in the lexicon; a bare wrapper is looked up by its parent's name first."""
    if layer.kind == "other":
        return None
    name, parent = around.name_and_parent(layer)
    context = around.context(layer)
    names = (parent, name) if name.lower() in load_lexicon().wrappers else (name,)
    for candidate in names:
        belief = load_lexicon().find(candidate, around.context_name(layer), parent, around.siblings(layer))
        if belief is not None:
            suffix = f" and {context.reason}" if context else ""
            return belief.role, "names", f"{candidate!r}: {belief.reason}{suffix}"
    return None


def feed_forward_widens_then_narrows(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label a feed-forward layer that widens as up and one that narrows as down."""
    if around.context_name(layer) not in ("mlp", "expert") or not layer.in_features or not layer.out_features:
        return None
    if layer.in_features == layer.out_features or layer.groups > 1:
        return None
    family = "expert" if around.context_name(layer) == "expert" else "mlp"
    widens = layer.out_features > layer.in_features
    role: Role = f"{family}.up" if widens else f"{family}.down"  # type: ignore[assignment]  # both are roles
    return role, "structure", f"in a feed-forward network it {'widens' if widens else 'narrows'}"


def convolution_by_its_kernel(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label a convolution depthwise by its groups, pointwise by its kernel, else spatial."""
    del around
    if layer.kind not in CONV_KINDS:
        return None
    if layer.groups > 1 and layer.groups == layer.in_features:
        return "conv.depthwise", "structure", f"its {layer.groups} groups are its channels"
    if all(size == 1 for size in layer.shape[2:]):
        return "conv.pointwise", "structure", "its kernel sees one position"
    return "conv.spatial", "structure", f"its kernel is {'x'.join(map(str, layer.shape[2:]))}"


RULES: tuple[Callable[[Layer, Surroundings], StaticVerdict | None], ...] = (
    norm_normalises,
    declared_head_is_the_head,
    beyond_the_base_model_is_the_head,
    embedding_looks_up,
    layer_between_towers_projects,
    first_convolution_makes_patches,
    router_stands_beside_experts,
    multihead_attention_is_fused,
    indexer_and_squeeze_layers_are_left_alone,
    wide_layer_twice_its_reader_is_gate_and_up,
    lexicon_knows_the_name,
    feed_forward_widens_then_narrows,
    convolution_by_its_kernel,
)


def last_dense_layer_is_the_head(layers: tuple[Layer, ...], around: Surroundings) -> tuple[Layer, ...]:
    """Label as head the last dense layer of a user's own module that declares none, if it follows all blocks."""
    is_own = around.facts.architecture.library == "torch" and not around.facts.sub_models
    dense = [layer for layer in layers if layer.kind in PROJECTOR_KINDS]
    if not is_own or len(dense) <= 1 or dense[-1].depth or any(layer.role == "head" for layer in layers):
        return layers
    reason = "it is the last layer of a module that declares no head"
    head = replace(dense[-1], role="head", evidence=(Evidence("structure", reason),))
    return tuple(head if layer is dense[-1] else layer for layer in layers)
