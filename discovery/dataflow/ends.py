"""Ends: the layers whose features a model returns, those that lead into its blocks, and where its towers meet."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from ...domain.layers import Layer
from ...domain.patterns import list_prefixes, pattern_of
from ...domain.vocabulary import CONV_KINDS, Tower
from ..facts.towers import is_below
from .flow import Origin
from .graph import Graph, is_dense

Crossing = tuple[Tower, Tower]
"""(tower, other): the tower reads features of the other."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The ends of a model, by the paths of layers.

    Attributes:
        returned: Layers whose features the model returns, with no other layer in between; where these are several, also
            the layers before one of them that share a module with it and serve nothing else.
        entering: Layers from which features get into a repeated block.
        compared: Dense layers outside the blocks, products of whose features the model returns: a query's and a
            document's.
    """

    returned: frozenset[str]
    entering: frozenset[str]
    compared: frozenset[str] = frozenset()


def join_ends(ends: Iterable[Ends]) -> Ends:
    """Return the ends of several forwards."""
    every = [*ends]
    returned, entering, compared = (e.returned for e in every), (e.entering for e in every), (e.compared for e in every)
    none = frozenset[str]()
    return Ends(none.union(*returned), none.union(*entering), none.union(*compared))


def find_ends(graph: Graph) -> Ends:
    """Return the ends of a forward that ran whole.

    A layer of repeated blocks is an end only if the blocks stand beside each other, as the heads of several tasks do.
    A model may also return features that other layers read. Their layer is no end if another end reads them, nor if it
    is a convolution or in a block, unless nothing reads a layer of the same pattern (boxes refined step by step).
    """
    numbers = _expand(graph, {origin for value in graph.flow.tape.returned for origin, _ in graph.flow.read(value)})
    chained = _chained_lists(graph)
    ends = {number for number in numbers if not _is_in(graph, number, chained)}
    ends -= {source for number in ends for reads in graph.flow.origins[number].reads for source, _ in reads}
    unread = {pattern_of(path) for path in _paths(graph, (n for n in ends if not graph.readers[n]))}
    paths = frozenset(path for path in _paths(graph, ends) if _is_end(graph.layers[path], unread))
    are_several = len({path.rpartition(".")[0] for path in paths}) > 1
    heads = paths | _list_before(graph, paths, chained) if are_several else paths
    return Ends(heads, _paths(graph, _entering(graph, chained)), _list_compared(graph, ends))


def _list_compared(graph: Graph, ends: Iterable[int]) -> frozenset[str]:
    """Return the dense layers outside the blocks whose features are the operands of a returned product, both of them.

    An operand from elsewhere shows a product that is no comparison, such as one with the weights of a hypernetwork.
    """
    products = (graph.flow.origins[number] for number in ends if graph.flow.origins[number].kind == "product")
    found: set[str] = set()
    for each in products:
        layers = [graph.records[source] for operand in each.reads for source, _ in operand]
        projections = [x.path for x in layers if x is not None and is_dense(x) and not x.depth]
        found.update(projections if len(projections) == len(layers) else ())
    return frozenset(found)


def _is_end(layer: Layer, unread: set[str]) -> bool:
    return pattern_of(layer.path) in unread or (layer.kind not in CONV_KINDS and not layer.depth)


def _is_in(graph: Graph, number: int, lists: Iterable[str]) -> bool:
    """Return whether an origin stands in a block of one of these lists."""
    block = graph.block(number)
    return block is not None and any(is_below(block, path) for path in lists)


def _list_before(graph: Graph, ends: frozenset[str], chained: frozenset[str]) -> frozenset[str]:
    """Return the layers that serve ends alone and share a module with one, which holds nothing else.

    Those in blocks of a chain are a network before the end.
    """
    numbers = [number for number, layer in enumerate(graph.records) if layer is not None and layer.path in ends]
    serving = graph.find_serving(numbers, lambda number: not _is_in(graph, number, chained))
    found = _paths(graph, serving) - _paths(graph, {*range(len(graph.records))} - serving)
    layers = [path for path, layer in graph.layers.items() if layer.kind not in ("norm", "embedding")]
    before: set[str] = set()
    for end in ends:
        around = ({path for path in layers if is_below(path, parent)} for parent in list_prefixes(end)[:-1])
        before |= next((inside for inside in around if inside <= found), set())
    return frozenset(before)


def _expand(graph: Graph, numbers: set[int]) -> set[int]:
    """Return the origins of values, with the branches of residual streams outside the blocks in their place.

    What a branch is added to comes before it.
    """
    seen, stack, found = set[int](), [*numbers], set[int]()
    while stack:
        number = stack.pop()
        if number in seen:
            continue
        seen.add(number)
        origin = graph.flow.origins[number]
        if origin.kind == "stream" and graph.block(number) is None:
            stack += [source for source, _ in origin.reads[-1]]
        else:
            found.add(number)
    return found


def _chained_lists(graph: Graph) -> frozenset[str]:
    """Return the lists of blocks in which one block reads another, or attends, or that hold a residual stream.

    Of several blocks with a stream inside each, none of which depends on another, none is chained: they are heads, or
    the members of an ensemble.
    """
    chained, with_stream, related = set[str](), set[str](), set[str]()
    members: dict[str, set[str]] = defaultdict(set)
    for origin, block, sources, earlier in _list_in_blocks(graph):
        stack = block.rpartition(".")[0]
        members[stack].add(block)
        others = {other for source in sources if (other := graph.block(source)) and not is_below(other, block)}
        if origin.kind == "attention" or any(is_below(other, stack) for other in others):
            chained.add(stack)
        with_stream |= {stack} if origin.kind == "stream" else set()
        related |= {stack} if earlier & members[stack] - {block} else set()
    return frozenset(chained | {stack for stack in with_stream if stack in related or len(members[stack]) == 1})


def _list_in_blocks(graph: Graph) -> Iterator[tuple[Origin, str, set[int], frozenset[str]]]:
    """Yield each origin in a block, with its block, its sources and the blocks that these depend on or stand in."""
    before: list[frozenset[str]] = []
    for number, origin in enumerate(graph.flow.origins):
        sources = {source for reads in origin.reads for source, _ in reads}
        block, earlier = graph.block(number), frozenset[str]().union(*(before[source] for source in sources))
        before.append(earlier | {block} if block else earlier)
        if block:
            yield origin, block, sources, earlier


def _entering(graph: Graph, chained: frozenset[str]) -> set[int]:
    """Return the origins outside the blocks from which features get into a block of a chain."""
    inside = [number for number in range(len(graph.flow.origins)) if _is_in(graph, number, chained)]
    seen, stack = set(inside), inside
    while stack:
        sources = {source for reads in graph.flow.origins[stack.pop()].reads for source, _ in reads} - seen
        seen |= sources
        stack += sources
    return {number for number in seen if graph.block(number) is None}


def _paths(graph: Graph, numbers: Iterable[int]) -> frozenset[str]:
    return frozenset(layer.path for number in numbers if (layer := graph.records[number]) is not None)


# --- towers that read each other ------------------------------------------------------------------------------------


def find_crossings(graph: Graph) -> frozenset[Crossing]:
    """Return the crossings of one forward: a tower that ran crosses itself, and a projector counts as its source."""
    above: list[frozenset[Tower]] = []
    crossings = set[Crossing]()
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        sources = {source for reads in origin.reads for source, _ in reads}
        towers = frozenset[Tower]().union(*(above[source] for source in sources))
        if layer is not None:
            towers |= {layer.tower}
            crossings.update(product((layer.tower,), towers))
        above.append(towers)
    return frozenset(crossings)


def find_separate(forwards: Iterable[frozenset[Crossing]]) -> frozenset[Crossing]:
    """Return the pairs of towers that ran in one forward, of which the first reads nothing of the second in any."""
    pairs, crossings = set[Crossing](), set[Crossing]()
    for found in forwards:
        ran = {tower for tower, _ in found}
        pairs.update(product(ran, ran))
        crossings |= found
    return frozenset(pairs - crossings)
