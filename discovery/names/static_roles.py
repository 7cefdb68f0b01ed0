"""Static roles: what names, shapes and declared structure say a layer does.

Each rule is one belief: it looks at one layer and its surroundings and answers a role with its reason, or nothing.
The first rule that answers decides.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ...domain.scans import Evidence, Layer
from ...domain.vocabulary import CONV_KINDS
from ..facts.heads import (
    Verdict,
    beyond_the_base_model_is_the_head,
    declared_head_is_the_head,
    layer_between_towers_projects,
)
from ..facts.surroundings import Surroundings

if TYPE_CHECKING:
    from ...domain.vocabulary import Role

Rule = Callable[[Layer, Surroundings], Verdict | None]

DENSE_KINDS = ("linear", "transposed_linear")


def label_layers(around: Surroundings) -> tuple[Layer, ...]:
    """Return the layers with role, tower and evidence."""
    labelled = tuple(_label(layer, around) for layer in around.layers)
    return _label_last_as_head(labelled, around)


def _label(layer: Layer, around: Surroundings) -> Layer:
    verdict = next((found for rule in RULES if (found := rule(layer, around)) is not None), None)
    role, by, says = verdict or ("other", "names", f"nothing known says what {layer.name!r} does")
    tower = around.towers.find(layer.path)
    live = False if around.context_name(layer) == "indexer" else None
    return replace(layer, tower=tower, live=live, role=role, evidence=(Evidence(by, says),))


def norm_normalises(layer: Layer, around: Surroundings) -> Verdict | None:
    """A norm by class is a norm by role."""
    del around
    return ("norm", "structure", f"its class {layer.class_name} normalises") if layer.kind == "norm" else None


def embedding_looks_up(layer: Layer, around: Surroundings) -> Verdict | None:
    """An embedding looks up tokens, or positions if it is named for them."""
    if layer.kind != "embedding":
        return None
    belief = around.lexicon.find(layer.name, "embedding", "", frozenset())
    if belief is not None:
        return belief.role, "names", belief.says
    return "embedding.token", "structure", "its class looks up rows by index"


def first_convolution_makes_patches(layer: Layer, around: Surroundings) -> Verdict | None:
    """The first convolution of a tower, if it stands before the blocks and sees more than one position."""
    if layer.kind not in CONV_KINDS or layer.depth or not around.has_blocks or max(layer.shape[2:]) == 1:
        return None
    if layer.path not in around.first_convolutions:
        return None
    return "embedding.patch", "structure", "it is its tower's first convolution, which turns raw input into patches"


def router_stands_beside_experts(layer: Layer, around: Surroundings) -> Verdict | None:
    """A small layer beside experts, or inside a router, decides which of them run."""
    name, parent = around.named(layer)
    beside_experts = any("expert" in sibling for sibling in around.siblings(layer) - {name.lower()})
    in_router = "router" in f"{parent} {layer.owner}".lower() or "gating" in layer.owner.lower()
    if name.lower() in around.lexicon.routers and (beside_experts or in_router):
        return "moe.router", "structure", f"{name!r} stands {'beside experts' if beside_experts else 'in a router'}"
    if name.lower() == "router" or (layer.out_features == 1 and name.lower().endswith("expert_gate")):
        return "moe.router", "names", f"{name!r} is named for routing"
    return None


def multihead_attention_is_fused(layer: Layer, around: Surroundings) -> Verdict | None:
    """``nn.MultiheadAttention`` holds query, key and value in one weight."""
    del around
    if layer.kind != "multihead_attention":
        return None
    return "attention.qkv", "structure", "nn.MultiheadAttention projects query, key and value with one weight"


def lookup_and_gate_contexts_are_left_alone(layer: Layer, around: Surroundings) -> Verdict | None:
    """A few contexts tell that a layer is no place for an adapter, whatever its own name is."""
    context = around.context(layer)
    if context is None or context.name not in ("indexer", "squeeze"):
        return None
    return "other", "names", context.says


def wide_layer_twice_its_reader_is_gate_and_up(layer: Layer, around: Surroundings) -> Verdict | None:
    """A feed-forward layer that writes twice what its sibling reads holds gate and up in one weight."""
    if layer.kind not in DENSE_KINDS or around.context_name(layer) != "mlp" or not layer.out_features:
        return None
    reads = around.siblings_read(layer) - {layer.in_features}
    if layer.out_features % 2 or layer.out_features // 2 not in reads:
        return None
    says = f"it writes {layer.out_features} features, twice what the layer beside it reads"
    return "mlp.gate_up", "structure", says


def name_tells(layer: Layer, around: Surroundings) -> Verdict | None:
    """The lexicon knows the layer's name in its context; a bare wrapper goes by the name of its parent."""
    if layer.kind == "other":
        return None
    name, parent = around.named(layer)
    context = around.context(layer)
    where = context.name if context else "plain"
    siblings = around.siblings(layer)
    names = (parent, name) if name.lower() in around.lexicon.wrappers else (name,)
    for candidate in names:
        belief = around.lexicon.find(candidate, where, parent, siblings)
        if belief is not None:
            because = f" and {context.says}" if context else ""
            return belief.role, "names", f"{candidate!r}: {belief.says}{because}"
    return None


def feed_forward_widens_then_narrows(layer: Layer, around: Surroundings) -> Verdict | None:
    """In a feed-forward network what widens is up and what narrows is down."""
    if around.context_name(layer) not in ("mlp", "expert") or not layer.in_features or not layer.out_features:
        return None
    if layer.in_features == layer.out_features or layer.groups > 1:
        return None
    family = "expert" if around.context_name(layer) == "expert" else "mlp"
    widens = layer.out_features > layer.in_features
    role: Role = f"{family}.up" if widens else f"{family}.down"  # type: ignore[assignment]  # both are roles
    return role, "structure", f"in a feed-forward network it {'widens' if widens else 'narrows'}"


def convolution_by_its_kernel(layer: Layer, around: Surroundings) -> Verdict | None:
    """A convolution is depthwise by its groups, pointwise by its kernel, else spatial."""
    del around
    if layer.kind not in CONV_KINDS:
        return None
    if layer.groups > 1 and layer.groups == layer.in_features:
        return "conv.depthwise", "structure", f"its {layer.groups} groups are its channels"
    if all(size == 1 for size in layer.shape[2:]):
        return "conv.pointwise", "structure", "its kernel sees one position"
    return "conv.spatial", "structure", f"its kernel is {'x'.join(map(str, layer.shape[2:]))}"


RULES: tuple[Rule, ...] = (
    norm_normalises,
    declared_head_is_the_head,
    beyond_the_base_model_is_the_head,
    embedding_looks_up,
    layer_between_towers_projects,
    first_convolution_makes_patches,
    router_stands_beside_experts,
    multihead_attention_is_fused,
    lookup_and_gate_contexts_are_left_alone,
    wide_layer_twice_its_reader_is_gate_and_up,
    name_tells,
    feed_forward_widens_then_narrows,
    convolution_by_its_kernel,
)


def _label_last_as_head(layers: tuple[Layer, ...], around: Surroundings) -> tuple[Layer, ...]:
    """In a user's own module the last dense layer outside the blocks, after all others, writes the output."""
    own = around.facts.architecture.library == "torch" and not around.facts.sub_models
    dense = [layer for layer in layers if layer.kind in (*DENSE_KINDS, *CONV_KINDS)]
    if not own or len(dense) <= 1 or dense[-1].depth or any(layer.role == "head" for layer in layers):
        return layers
    says = "it is the last layer of a module that declares no head"
    head = replace(dense[-1], role="head", evidence=(Evidence("structure", says),))
    return tuple(head if layer is dense[-1] else layer for layer in layers)
