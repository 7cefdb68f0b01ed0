"""Attention: which layers feed query, key and value, and which one reads the result."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...domain.vocabulary import Role
from ..facts.towers import is_below
from .flow import Sources, Way
from .graph import DENSE_KINDS, Graph, common_path, is_depthwise

OPERANDS = ("query", "key", "value")


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention on the flow.

    Attributes:
        number: The origin that is its result.
        reads: Sources of query, key and value.
        name: How it is computed.
    """

    number: int
    reads: tuple[Sources, ...]
    name: str


def tell_attention(graph: Graph) -> None:
    """Say which layers feed the operands of attentions, which feed those, and which read the results."""
    origins = enumerate(graph.flow.origins)
    say_attentions(graph, [Attention(n, o.reads, o.name) for n, o in origins if o.kind == "attention"])


def say_attentions(graph: Graph, attentions: Iterable[Attention]) -> None:
    """Say what the layers around attentions do."""
    operands: dict[str, dict[str, str]] = defaultdict(dict)
    scopes: dict[str, str] = {}
    projected: set[int] = set()
    for attention in attentions:
        if _attends_to_depth(graph, attention):
            continue
        by_operand = [_operand_layers(graph, attention.number, reads) for reads in attention.reads]
        scope = _scope(graph, attention.number, [layer for layers in by_operand for layer in layers])
        projected.update([attention.number] if any(by_operand) else [])
        for operand, layers in zip(OPERANDS, by_operand, strict=True):
            for layer in layers:
                operands[layer.path][operand] = attention.name
                scopes[layer.path] = scope
    latents = _latents(graph, operands, scopes)
    keys = {pattern_of(path) for path, found in operands.items() if set(found) == {"key"}}
    for path, found in operands.items():
        if path not in latents:
            _say_operands(graph, graph.layers[path], found, is_key=pattern_of(path) in keys)
    for path in latents:
        says = "what it writes is expanded by another layer on its way to attention"
        graph.say(graph.layers[path], "attention.latent", says)
    for number in projected:
        _tell_readers(graph, number, set(operands) | latents)


def _operand_layers(graph: Graph, number: int, reads: Sources) -> list[Layer]:
    """Return the layers that feed an operand; those inside another module of the same block belong to that one."""
    unit, site = graph.unit(number), graph.flow.origins[number].site
    layers = graph.feeders(reads, unit)
    if unit is None or site == unit:
        return layers
    return [layer for layer in layers if not _stands_apart(layer, site, unit)]


def _stands_apart(layer: Layer, site: str, unit: str) -> bool:
    parent = layer.path.rpartition(".")[0]
    return parent != unit and is_below(parent, unit) and common_path([parent, site]) == unit


def _attends_to_depth(graph: Graph, attention: Attention) -> bool:
    """Tell whether the values are what other attentions wrote: a choice among blocks, which projects nothing."""
    layers = (source for source, _ in attention.reads[2] if graph.records[source] is not None)
    read = (source for layer in layers for source, _ in graph.flow.origins[layer].reads[0])
    return any(graph.flow.origins[source].kind == "attention" for source in read)


def _scope(graph: Graph, number: int, layers: Iterable[Layer]) -> str:
    """Return the innermost module that holds an attention and what feeds it; keys of another block do not count."""
    unit = graph.unit(number)
    parents = (layer.path.rpartition(".")[0] for layer in layers if graph.unit_of(layer) == unit)
    return common_path([graph.flow.origins[number].site, *parents])


def _latents(graph: Graph, operands: dict[str, dict[str, str]], scopes: dict[str, str]) -> set[str]:
    """Layers whose output another layer of the same attention expands: the low-rank half of a projection."""
    found: set[str] = set()
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        if layer is None or layer.path not in operands or is_depthwise(layer):
            continue
        for before in graph.feeders(origin.reads[0]):
            inside = scopes[layer.path] and is_below(before.path, scopes[layer.path])
            if inside and before.path != layer.path and before.kind in DENSE_KINDS:
                found.add(before.path)
    return found


_ROLE_OF_OPERANDS: dict[frozenset[str], Role] = {
    frozenset({"query"}): "attention.query",
    frozenset({"key"}): "attention.key",
    frozenset({"value"}): "attention.value",
    frozenset({"key", "value"}): "attention.kv",
    frozenset({"query", "key"}): "attention.query",
    frozenset({"query", "value"}): "attention.qkv",
    frozenset(OPERANDS): "attention.qkv",
}


def _say_operands(graph: Graph, layer: Layer, found: dict[str, str], *, is_key: bool) -> None:
    """Say what a layer feeds; a key that also serves as value in some blocks of a model is a key in all of them."""
    if is_depthwise(layer):
        return
    role = "attention.key" if is_key else _ROLE_OF_OPERANDS[frozenset(found)]
    named = " and ".join(operand for operand in OPERANDS if operand in found)
    how = ", ".join(dict.fromkeys(found.values()))
    graph.say(layer, role, f"reaches the {named} operand of attention ({how})")


def _tell_readers(graph: Graph, number: int, operands: set[str]) -> None:
    """Say what reads the result of an attention: its output, or the low-rank half of it and then its output."""
    unit, site = graph.unit(number), graph.flow.origins[number].site
    for reader, _ in graph.readers[number]:
        layer = graph.records[reader]
        if layer is None or layer.path in operands or graph.unit(reader) != unit:
            continue
        last = _expands_low_rank(graph, reader, site)
        if last is not None:
            graph.say(layer, "attention.latent", "what it writes is expanded by another layer that leaves attention")
        graph.say(last or layer, "attention.output", "is the next layer on the result of attention")


def _expands_low_rank(graph: Graph, number: int, site: str) -> Layer | None:
    """Return the layer of the same attention that alone reads a layer, and that only."""
    readers = {reader for reader, way in graph.readers[number] if not way}
    layers = [graph.records[reader] for reader in readers if graph.flow.origins[reader].kind != "stream"]
    if len(readers) != 1 or not layers or layers[0] is None or not is_below(layers[0].path, site):
        return None
    return layers[0] if layers[0].kind in DENSE_KINDS else None


def tell_weighted(graph: Graph) -> None:
    """Values weighted by the softmax of a layer, not of a product: deformable and outlook attention."""
    for number, origin in enumerate(graph.flow.origins):
        for reads in origin.reads if origin.kind in ("layer", "product") else ():
            _tell_weighted_values(graph, number, reads if origin.kind == "layer" else origin.reads[0] | origin.reads[1])


def _tell_weighted_values(graph: Graph, number: int, reads: Sources) -> None:
    unit = graph.unit(number)
    layers = {s: layer for s, _ in reads if (layer := graph.records[s]) is not None and graph.unit(s) == unit}
    inside = {s: way for (s, _), way in reads.items() if s in layers}
    weights = {s for s, way in inside.items() if way & Way.SOFTMAXED and not graph.is_router(s)}
    values = {s for s, way in inside.items() if not way & (Way.SOFTMAXED | Way.ACTIVATED)} - weights
    is_weighted = graph.flow.origins[number].kind == "product" or any(inside[s] & Way.MULTIPLIED for s in values)
    if unit is None or not weights or not values or not is_weighted:
        return
    told = [layers[s] for s in values if layers[s].kind in DENSE_KINDS and not graph.is_said(layers[s])]
    for layer in told:
        graph.say(layer, "attention.value", "is weighted by the softmax of another layer")
    ends = [number] if graph.records[number] else [reader for reader, _ in graph.readers[number]]
    for end in ends if told else ():
        graph.say(graph.records[end], "attention.output", "is the next layer on the weighted values")
