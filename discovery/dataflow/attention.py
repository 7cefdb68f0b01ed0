"""Attention: the layers that feed query, key and value, and the one that reads the result."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...domain.vocabulary import Role
from ..facts.towers import is_below
from .contractions import letters_of, links_left, runs_over_features, shared_axes
from .flow import Effect, Origin, Sources
from .graph import DENSE_KINDS, Graph, common_path, is_depthwise
from .mixers import is_recurrent, mixing_scopes, stands_below
from .operations import CONVOLUTIONS, SCATTERS

OPERANDS = ("query", "key", "value")
ROLE_OF_OPERANDS: dict[frozenset[str], Role] = {
    frozenset({"query"}): "attention.query",
    frozenset({"key"}): "attention.key",
    frozenset({"value"}): "attention.value",
    frozenset({"key", "value"}): "attention.kv",
    frozenset({"query", "key"}): "attention.query",
    frozenset({"query", "value"}): "attention.qkv",
    frozenset(OPERANDS): "attention.qkv",
}


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention on the flow.

    Attributes:
        number: The origin that is its result.
        reads: Sources of query, key and value.
        name: The operations that compute it.
    """

    number: int
    reads: tuple[Sources, ...]
    name: str


def vote_on_attention(graph: Graph) -> None:
    """Vote on the layers around attentions with a softmax over scores."""
    origins = enumerate(graph.flow.origins)
    vote_around(graph, [Attention(n, o.reads, o.name) for n, o in origins if o.kind == "attention"])


def vote_on_kernel_attention(graph: Graph) -> None:
    """Vote on the layers around attentions such as ``query @ (key.T @ value)`` (linear attention, arXiv:2006.16236).

    These are two products in a row in a module without any recurrence; exponentials are none by themselves.
    """
    for members in graph.branches:
        for scope in mixing_scopes(graph, members):
            inside = [number for number in members if stands_below(graph, number, scope)]
            if not any(is_recurrent(graph, number, Effect.DECAYED) for number in inside):
                pairs = pairs_of_products(graph, inside)
                vote_around(graph, [pair for pair in pairs if is_kernel(pair)])


def is_kernel(attention: Attention) -> bool:
    """Return whether exponentials belong to the features of queries and keys (random features, arXiv:2009.14794).

    Elsewhere, or on one of them alone, they are a decay.
    """
    query, key, value = (any(effects & Effect.EXPONENTIATED for effects in reads.values()) for reads in attention.reads)
    return query == key and not value


def vote_around(graph: Graph, attentions: Iterable[Attention]) -> None:
    """Vote on the layers that feed the operands of attentions, feed those, or read the results."""
    names: dict[str, dict[str, str]] = defaultdict(dict)  # of the attentions, by layer and operand
    scopes: dict[str, str] = {}
    projected: set[int] = set()
    for attention in attentions:
        if selects_among_blocks(graph, attention):
            continue
        fed = list(_operand_layers(graph, attention))
        parents = (x.path.rpartition(".")[0] for _, x in fed if graph.block_of(x) == graph.block(attention.number))
        scope = common_path([graph.flow.origins[attention.number].site, *parents])
        for operand, layer in fed:
            projected.add(attention.number)
            names[layer.path][operand] = attention.name
            scopes[layer.path] = scope
    outputs = {read.path for n in projected for x, _ in graph.readers[n] if (read := graph.records[x]) is not None}
    latents = find_latents(graph, scopes) - outputs  # an attention that is called again reads its own output
    vote_on_operands(graph, names, latents)
    for path in latents:
        reason = "what it writes is expanded by another layer on its way to attention"
        graph.vote(graph.layers[path], "attention.latent", reason)
    for number in projected:
        vote_on_readers(graph, number, names.keys() | latents)


def selects_among_blocks(graph: Graph, attention: Attention) -> bool:
    """Return whether the values are the outputs of other attentions: a choice among blocks projects nothing.

    Attentions over the edges of a graph follow each other directly.
    """
    if graph.flow.tape.ops[graph.flow.origins[attention.number].op].name in SCATTERS:
        return False
    layers = (source for source, _ in attention.reads[2] if graph.records[source] is not None)
    read = (source for layer in layers for source, _ in graph.flow.origins[layer].reads[0])
    return any(graph.flow.origins[source].kind == "attention" for source in read)


def _operand_layers(graph: Graph, attention: Attention) -> Iterator[tuple[str, Layer]]:
    """Yield (operand, layer) for each layer that feeds an operand.

    A layer inside another module of the same block belongs to that module.
    """
    block, site = graph.block(attention.number), graph.flow.origins[attention.number].site
    for operand, reads in zip(OPERANDS, attention.reads, strict=True):
        for layer in graph.feeders(reads, block):
            parent = layer.path.rpartition(".")[0]
            is_inside = block is not None and block not in (site, parent) and is_below(parent, block)
            if not (is_inside and common_path([parent, site]) == block):
                yield operand, layer


def find_latents(graph: Graph, scopes: dict[str, str]) -> set[str]:
    """Return the layers whose output another layer of the same attention expands: low-rank halves of a projection."""
    latents: set[str] = set()
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        scope = scopes.get(layer.path) if layer is not None else None
        if layer is None or not scope or is_depthwise(layer):
            continue
        for before in graph.feeders(origin.reads[0]):
            if is_below(before.path, scope) and before.path != layer.path and before.kind in DENSE_KINDS:
                latents.add(before.path)
    return latents


def vote_on_operands(graph: Graph, names: dict[str, dict[str, str]], latents: set[str]) -> None:
    """Vote on the layers that feed operands, latents left out, by the operands and the name of the attention.

    A key that also serves as value in some blocks of a model is a key in all of them.
    """
    keys = {pattern_of(path) for path, operands in names.items() if set(operands) == {"key"}}
    for path, operands in names.items():
        layer = graph.layers[path]
        if path not in latents and not is_depthwise(layer):
            role = "attention.key" if pattern_of(path) in keys else ROLE_OF_OPERANDS[frozenset(operands)]
            operand = " and ".join(operand for operand in OPERANDS if operand in operands)
            how = ", ".join(dict.fromkeys(operands.values()))
            graph.vote(layer, role, f"reaches the {operand} operand of attention ({how})")


def vote_on_readers(graph: Graph, number: int, operands: set[str]) -> None:
    """Vote on the layers that read the result of an attention: its output, or a low-rank half and then its output."""
    block, site = graph.block(number), graph.flow.origins[number].site
    for reader, _ in graph.readers[number]:
        layer = graph.records[reader]
        if layer is None or layer.path in operands or graph.block(reader) != block:
            continue
        last = _only_reader(graph, reader, site)
        if last is not None:
            reason = "what it writes is expanded by another layer that leaves attention"
            graph.vote(layer, "attention.latent", reason)
        graph.vote(last or layer, "attention.output", "is the next layer on the result of attention")


def _only_reader(graph: Graph, number: int, site: str) -> Layer | None:
    """Return the dense layer of the same attention that alone reads a layer, and that only."""
    readers = {reader for reader, effects in graph.readers[number] if not effects}
    layers = [graph.records[reader] for reader in readers if graph.flow.origins[reader].kind != "stream"]
    if len(readers) != 1 or not layers or layers[0] is None or not is_below(layers[0].path, site):
        return None
    return layers[0] if layers[0].kind in DENSE_KINDS else None


# --- two products without a softmax -----------------------------------------------------------------------------------


def pairs_of_products(graph: Graph, numbers: list[int]) -> Iterator[Attention]:
    """Yield the products of a product that a layer reads.

    A result that only picks positions, as an indexer's does, is no attention.
    """
    for number in numbers:
        outer = graph.flow.origins[number]
        if outer.kind != "product" or not any(graph.records[reader] for reader, _ in graph.readers[number]):
            continue
        for side in (0, 1):
            inner = next((graph.flow.origins[source] for source, _ in outer.reads[side]), None)
            if inner is not None and _is_weighted(graph, inner, outer):
                reads = _operands_of_pair(graph, inner, outer, side)
                yield Attention(number, reads, f"{inner.name}, {outer.name} without softmax")
                break


def _is_weighted(graph: Graph, inner: Origin, outer: Origin) -> bool:
    """Return whether the first of two products may be the weights or the state of an attention.

    It reads no product itself. Two convolutions with computed kernels, as conditional ones have, are none.
    """
    if inner.kind != "product" or {inner.name, outer.name} <= CONVOLUTIONS:
        return False
    return not any(graph.flow.origins[source].kind == "product" for reads in inner.reads for source, _ in reads)


def _operands_of_pair(graph: Graph, inner: Origin, outer: Origin, side: int) -> tuple[Sources, ...]:
    """Return query, key and value of ``(inner) @ third`` (side 0) or ``third @ (inner)`` (side 1).

    The key is the operand that both products sum over. The inner product is scores if it sums over features; if it sums
    over positions, it is the state ``key.T @ value``.
    """
    left, right = inner.reads
    third = outer.reads[1 - side]
    is_left = links_left(graph.flow, inner, outer, side)
    if is_left is None and _sums_over_width(graph, inner):  # the axes are unknown
        return (left, right, third) if side == 0 else (right, left, third)
    if is_left is None:  # of a state, the value survives the outer product
        return (third, right, left) if side == 0 else (third, left, right)
    key, end = (left, right) if is_left else (right, left)
    return (end, key, third) if _sums_over_features(graph, inner) else (third, key, end)


def _sums_over_features(graph: Graph, inner: Origin) -> bool:
    """Return whether a product sums over features of one of its operands, not over positions."""
    letters = letters_of(graph.flow.tape.ops[inner.op], graph.flow.tape.shapes)
    if letters is None:
        return _sums_over_width(graph, inner)
    for number, reads in enumerate(inner.reads):
        axes = shared_axes(letters[number], letters[1 - number], letters[2])
        found = runs_over_features(graph, inner.read_values[number], reads, axes)
        if found is not None:
            return found
    return _sums_over_width(graph, inner)


def _sums_over_width(graph: Graph, inner: Origin) -> bool:
    """Return whether the last dimension of a product's left operand divides the width of a layer that feeds it."""
    contracted = graph.flow.tape.shapes[inner.read_values[0]][-1]
    widths = [layer.out_features for layer in graph.feeders(inner.reads[0])]
    return any(width is not None and width % contracted == 0 for width in widths)


# --- weights from a single layer --------------------------------------------------------------------------------------


def vote_on_weighted_values(graph: Graph) -> None:
    """Vote on values weighted by the softmax of a layer, not of a product: deformable and outlook attention."""
    for number, origin in enumerate(graph.flow.origins):
        if origin.kind not in ("layer", "product"):
            continue
        read = layers_read_in_block(graph, number, origin.reads[0] | origin.reads[-1])
        weights = {s for s, effects in read.items() if effects & Effect.SOFTMAXED and not graph.is_router(s)}
        values = {s for s, effects in read.items() if not effects & (Effect.SOFTMAXED | Effect.ACTIVATED)} - weights
        if weights and (origin.kind == "product" or any(read[s] & Effect.MULTIPLIED for s in values)):
            vote_on_values(graph, number, values)


def layers_read_in_block(graph: Graph, number: int, reads: Sources) -> dict[int, int]:
    """Return the sources of an origin that are layers of its own block, with their effects."""
    block = graph.block(number)
    if block is None:
        return {}
    return {s: e for (s, _), e in reads.items() if graph.records[s] is not None and graph.block(s) == block}


def vote_on_values(graph: Graph, number: int, values: set[int]) -> None:
    """Vote on weighted values without any other vote, and on the output that reads them."""
    layers = [layer for value in values if (layer := graph.records[value]) is not None]
    dense = [layer for layer in layers if layer.kind in DENSE_KINDS and not graph.has_vote(layer)]
    for layer in dense:
        graph.vote(layer, "attention.value", "is weighted by the softmax of another layer")
    ends = [number] if graph.records[number] else [reader for reader, _ in graph.readers[number]]
    for end in ends if dense else ():
        graph.vote(graph.records[end], "attention.output", "is the next layer on the weighted values")
