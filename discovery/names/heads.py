"""Static rules for heads: layers a model declares, layers outside its pretrained part, and the last layers."""

from collections.abc import Sequence
from dataclasses import replace

from ...domain.layers import Evidence, Layer
from ..facts.towers import is_below
from .surroundings import DENSE_KINDS, PROJECTOR_KINDS, StaticVerdict, Surroundings

BOX = 4
"""Numbers of a box; a detector of three classes looks up as many rows, with one for none of them."""


def declared_head_is_the_head(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label as head each layer that a model, or a model inside it, declares as output embeddings or classifier."""
    inside = (model.heads for model in around.facts.sub_models)
    for path in around.facts.task_heads.union(around.facts.language_heads, *inside):
        if is_below(layer.path, path):
            return "head", "structure", f"the model declares {path!r} as its output"
    return None


def layer_outside_the_pretrained_model_is_the_head(layer: Layer, around: Surroundings) -> StaticVerdict | None:
    """Label as head each layer outside the pretrained model, unless it belongs to a network there or leads into one."""
    reason = around.explain_outside(layer)
    return ("head", "structure", reason) if reason and not around.leads_to_network(layer) else None


HEAD_RULES = (declared_head_is_the_head, layer_outside_the_pretrained_model_is_the_head)


def guess_heads(layers: tuple[Layer, ...], around: Surroundings) -> tuple[Layer, ...]:
    """Label as heads the layers that share a head's weight, and the likeliest ones of a user's own module."""
    layers = label_heads(layers, _list_sharing(layers), "it shares the weight of a head")
    if not guesses_heads(around) or any(layer.role == "head" for layer in layers):
        return layers
    dense = [layer for layer in layers if layer.kind in PROJECTOR_KINDS]
    last = list_last_layers(dense)
    spoken = [x for x in dense if not x.depth and x.kind in DENSE_KINDS and is_over_vocabulary(x, layers)]
    if len({*last, *spoken}) == len(dense) and not around.has_others:  # nothing of the model would be left to adapt
        return layers
    layers = label_heads(layers, last, "the module declares no head, and no layer after this one reads it")
    return label_heads(layers, spoken, "it writes one value per token of the vocabulary")


def _list_sharing(layers: Sequence[Layer]) -> list[Layer]:
    """Return the dense layers without a role that share a head's weight."""
    weights = {layer.tied_to or layer.path for layer in layers if layer.role == "head" and layer.kind in DENSE_KINDS}
    return [x for x in layers if (x.tied_to or x.path) in weights and x.role == "other" and x.kind in DENSE_KINDS]


def guesses_heads(around: Surroundings) -> bool:
    """Return whether heads have to be guessed: in a user's own module without a model of a library in it."""
    facts = around.facts
    return facts.architecture.library == "torch" and not facts.sub_models and not facts.library_models


def list_last_layers(dense: Sequence[Layer]) -> list[Layer]:
    """Return the last layer, if it follows all blocks, and those beside it: of its input width, none before another."""
    if not dense or dense[-1].depth:
        return []
    last, start = dense[-1], max((n for n, layer in enumerate(dense, 1) if layer.depth), default=0)
    read = {layer.in_features for layer in dense[start:]}
    beside = [x for x in dense[start:-1] if (x.kind, x.in_features) == (last.kind, last.in_features)]
    return [*(layer for layer in beside if layer.out_features not in read), last]


def is_over_vocabulary(layer: Layer, layers: Sequence[Layer]) -> bool:
    """Return whether a layer is tied to an embedding, or has an output for each row of the largest one."""
    tables = [other for other in layers if other.role == "embedding.token"]
    rows = max((table.shape[0] for table in tables if table.shape[0] > BOX), default=-1)
    return layer.out_features == rows or (layer.tied_to or layer.path) in {x.tied_to or x.path for x in tables}


def label_heads(
    layers: tuple[Layer, ...], heads: Sequence[Layer], reason: str, by: str = "structure"
) -> tuple[Layer, ...]:
    """Return the layers with these labelled as heads; their earlier evidence, without that of names, follows."""
    paths, evidence = {head.path for head in heads}, Evidence(by, reason)

    def label(layer: Layer) -> Layer:
        known = (each for each in layer.evidence if each.by != "names")
        return replace(layer, role="head", evidence=(evidence, *known)) if layer.path in paths else layer

    return tuple(map(label, layers))
