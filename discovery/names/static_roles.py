"""Static roles: infer the role of each layer from names, shapes and declared structure.

Each rule is one belief: it looks at one layer and its surroundings and returns a role with its reason, or ``None``.
The first rule that returns a role decides.
"""

from collections.abc import Callable
from dataclasses import replace

from ...domain.layers import Evidence, Layer
from ...domain.vocabulary import CONV_KINDS, Role
from .heads import HEAD_RULES, guess_heads
from .lexicon import load_lexicon
from .surroundings import DENSE_KINDS, PROJECTOR_KINDS, StaticVerdict, Surroundings


def label_layers(around: Surroundings) -> tuple[Layer, ...]:
    """Return the layers with role, tower and evidence."""
    labelled = tuple(label_layer(layer, around) for layer in around.layers)
    return guess_heads(labelled, around)


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
    found = around.find_belief(layer)
    if found is None:
        return None
    context = around.context(layer)
    suffix = f" and {context.reason}" if context else ""
    return found[1].role, "names", f"{found[0]!r}: {found[1].reason}{suffix}"


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
    *HEAD_RULES,
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
