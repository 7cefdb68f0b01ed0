"""Crossings: which towers read, directly or through other layers, features that another tower made."""

from collections.abc import Iterable
from itertools import product

from ...domain.vocabulary import Tower
from .graph import Graph

Crossing = tuple[Tower, Tower]
"""(tower, other): the tower reads features of the other."""


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
