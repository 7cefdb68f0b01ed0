"""Mixers: state-space models, linear attention and gated convolutions, which mix positions without a softmax."""

from collections import Counter

from ..facts.towers import is_below
from .flow import Way
from .graph import DENSE_KINDS, ENDS, Graph, Saying, common_path, is_dense

FEW = 4
"""Parts a layer's output may be unpacked into by number: query, key, value and gate. More of them are positions."""


def tell_mixers(graph: Graph) -> None:
    """Say what enters, leaves and stands in every mixer."""
    for members in graph.branches:
        for scope in mixing_scopes(graph, members):
            inside = [n for n in members if stands_below(graph, n, scope)]
            layers = [n for n in inside if graph.records[n] is not None]
            is_told = any(graph.is_said(graph.records[n]) for n in layers)
            if not is_told and any(_leaves_recurrence(graph, n) for n in layers):
                _say_mixer(graph, scope, layers)


def mixing_scopes(graph: Graph, members: list[int]) -> list[str]:
    """Return the modules in which a branch mixes positions without a softmax, behind a dense layer."""
    scopes = {scope for n in members if (scope := _mixing_scope(graph, n)) is not None}
    deeper = scopes - {graph.unit(members[0])} or scopes  # a block may also mix its own residual streams
    outermost = (s for s in deeper if not any(s != other and is_below(s, other) for other in deeper))
    attentions = [graph.flow.origins[n].site for n in members if graph.flow.origins[n].kind == "attention"]
    return sorted(s for s in outermost if not any(is_below(site, s) for site in attentions))


def _mixing_scope(graph: Graph, number: int) -> str | None:
    """Return the innermost module that holds a mixing operation and what feeds it."""
    origin, unit = graph.flow.origins[number], graph.unit(number)
    feeders = [f for reads in origin.reads for f in graph.feeders(reads) if graph.unit_of(f) == unit]
    mixes = origin.kind == "product" or is_recurrent(graph, number)
    if not mixes or not any(is_dense(feeder) for feeder in feeders):
        return None
    return common_path([origin.site, *(f.path.rpartition(".")[0] for f in feeders)])


def is_recurrent(graph: Graph, number: int) -> bool:
    """Tell whether an origin is a convolution along the sequence, or reads what went through a recurrence.

    That is features taken apart position by position, a running sum or a decay.
    """
    origin, layer = graph.flow.origins[number], graph.records[number]
    if layer is not None and layer.kind == "conv1d" and max(layer.shape[2:]) > 1:
        return True
    ways = [(s, way) for reads in origin.reads for (s, _), way in reads.items() if not graph.is_router(s)]
    scanned = Counter(source for source, way in ways if way & Way.SCANNED)
    return max(scanned.values(), default=0) > FEW or any(way & Way.DECAYED for _, way in ways)


def _leaves_recurrence(graph: Graph, number: int) -> bool:
    """Tell whether a dense layer reads what a recurrence made: a convolution behind everything makes no mixer."""
    layer, origin = graph.records[number], graph.flow.origins[number]
    if layer is None or layer.kind not in DENSE_KINDS:
        return False
    return is_recurrent(graph, number) or any(is_recurrent(graph, source) for source, _ in origin.reads[0])


def stands_below(graph: Graph, number: int, scope: str) -> bool:
    """Tell whether an origin stands in a module."""
    layer, origin = graph.records[number], graph.flow.origins[number]
    return origin.kind not in ENDS and is_below(layer.path if layer else origin.site, scope)


def _say_mixer(graph: Graph, scope: str, layers: list[int]) -> None:
    """Say what stands in a mixer; a dense layer must enter it and another leave it."""
    said = {number: _saying(graph, scope, number) for number in layers}
    dense = {said[n][0] for n in layers if (layer := graph.records[n]) is not None and layer.kind in DENSE_KINDS}
    if {"mixer.input", "mixer.output"} <= dense:
        for number, (role, says) in said.items():
            graph.say(graph.records[number], role, says)


def _saying(graph: Graph, scope: str, number: int) -> Saying:
    reads = any(stands_below(graph, source, scope) for source, _ in graph.flow.origins[number].reads[0])
    is_read = any(stands_below(graph, reader, scope) for reader, _ in graph.readers[number])
    if is_read and not reads:
        return "mixer.input", "feeds a sequence mixer without softmax"
    if reads and not is_read:
        return "mixer.output", "is the last layer of a sequence mixer without softmax"
    return "mixer.state", "stands inside a sequence mixer without softmax"
