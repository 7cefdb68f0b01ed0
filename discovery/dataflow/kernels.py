"""Attention without a softmax over scores: two products in a row that nothing recurrent goes into."""

from collections.abc import Iterator

from .attention import Attention, say_attentions
from .flow import Origin, Sources
from .graph import Graph
from .mixers import is_recurrent, mixing_scopes, stands_below


def tell_kernel_attention(graph: Graph) -> None:
    """Say which layers feed attentions such as ``query @ (key.T @ value)`` (linear attention, arXiv:2006.16236)."""
    for members in graph.branches:
        for scope in mixing_scopes(graph, members):
            inside = [n for n in members if stands_below(graph, n, scope)]
            if not any(is_recurrent(graph, n) for n in inside):
                say_attentions(graph, _pairs_of_products(graph, inside))


def _pairs_of_products(graph: Graph, numbers: list[int]) -> Iterator[Attention]:
    for number in numbers:
        outer = graph.flow.origins[number]
        if outer.kind != "product" or not any(graph.records[reader] for reader, _ in graph.readers[number]):
            continue  # what only picks positions, as an indexer does, attends to nothing
        for side in (0, 1):
            inner = next((graph.flow.origins[o] for o, _ in outer.reads[side]), None)
            if inner is not None and inner.kind == "product" and not any(_products(graph, r) for r in inner.reads):
                reads = _operands(graph, inner, outer, side)
                yield Attention(number, reads, f"{inner.name}, {outer.name} without softmax")
                break


def _products(graph: Graph, reads: Sources) -> list[int]:
    return [source for source, _ in reads if graph.flow.origins[source].kind == "product"]


def _operands(graph: Graph, inner: Origin, outer: Origin, side: int) -> tuple[Sources, ...]:
    """Return query, key and value of ``(inner) @ third`` (side 0) or ``third @ (inner)`` (side 1).

    The inner product is scores if it contracts features; if it contracts positions, it is the state ``key.T @ value``,
    of which the value is the side that survives the outer product.
    """
    left, right = inner.reads
    third = outer.reads[1 - side]
    if _contracts_features(graph, inner):
        return (left, right, third) if side == 0 else (right, left, third)
    return (third, right, left) if side == 0 else (third, left, right)


def _contracts_features(graph: Graph, product: Origin) -> bool:
    size = graph.flow.tape.shapes[product.read_values[0]][-1]
    widths = [layer.out_features for layer in graph.feeders(product.reads[0])]
    return any(width is not None and width % size == 0 for width in widths)
