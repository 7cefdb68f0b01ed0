"""Mixers: state-space models, linear attention and gated convolutions, which mix positions without a softmax."""

from collections import Counter, defaultdict

from ...records import Layer
from ..towers import is_below
from .flow import Sources, Way
from .graph import DENSE_KINDS, Graph, Saying, common_path


def tell_mixers(graph: Graph) -> None:
    """Say what enters, leaves and stands in every mixer."""
    for members in _branches(graph):
        for scope in _mixing_scopes(graph, members):
            layers = [n for n in members if graph.records[n] is not None and _stands_below(graph, n, scope)]
            if not any(graph.is_said(graph.records[n]) for n in layers):  # weighted values are no mixer
                _say_mixer(graph, scope, layers)


def _branches(graph: Graph) -> list[list[int]]:
    """Return groups of origins that pass features to one another within a block, residual streams cut."""
    leader = list(range(len(graph.flow.origins)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    for number, origin in enumerate(graph.flow.origins):
        if origin.kind == "stream":
            continue
        for reads in origin.reads:
            for source, _ in reads:
                if graph.flow.origins[source].kind != "stream" and graph.unit(source) == graph.unit(number):
                    leader[find(number)] = find(source)
    groups: dict[int, list[int]] = defaultdict(list)
    for number, origin in enumerate(graph.flow.origins):
        if origin.kind != "stream" and graph.unit(number) is not None:
            groups[find(number)].append(number)
    return list(groups.values())


def _mixing_scopes(graph: Graph, members: list[int]) -> list[str]:
    """Return the modules in which a branch mixes positions without a softmax, behind a dense layer."""
    scopes = {scope for n in members if (scope := _mixing_scope(graph, n)) is not None}
    deeper = scopes - {graph.unit(members[0])} or scopes  # a block may also mix its own residual streams
    outermost = (s for s in deeper if not any(s != other and is_below(s, other) for other in deeper))
    attentions = [graph.flow.origins[n].site for n in members if graph.flow.origins[n].kind == "attention"]
    return sorted(s for s in outermost if not any(is_below(site, s) for site in attentions))


def _mixing_scope(graph: Graph, number: int) -> str | None:
    """Return the innermost module that holds a mixing operation and what feeds it."""
    origin, layer = graph.flow.origins[number], graph.records[number]
    unit = graph.unit(number)
    feeders = [f for reads in origin.reads for f in graph.feeders(reads) if graph.unit_of(f) == unit]
    mixes = origin.kind == "product" or (layer is not None and _mixes_positions(layer, origin.reads[0]))
    if not mixes or not any(f.kind in DENSE_KINDS for f in feeders):
        return None
    return common_path([origin.site, *(f.path.rpartition(".")[0] for f in feeders)])


def _mixes_positions(layer: Layer, reads: Sources) -> bool:
    """Tell whether a layer is a convolution along the sequence, or reads what went through a recurrence.

    That is features taken apart position by position, a running sum or a decay.
    """
    if layer.kind == "conv1d" and max(layer.shape[2:]) > 1:
        return True
    scanned = Counter(source for (source, _), way in reads.items() if way & Way.SCANNED)
    return max(scanned.values(), default=0) > FEW or any(way & Way.DECAYED for way in reads.values())


FEW = 4
"""Parts a layer's output may be unpacked into by number: query, key, value and gate. More of them are positions."""


def _stands_below(graph: Graph, number: int, scope: str) -> bool:
    layer, origin = graph.records[number], graph.flow.origins[number]
    return origin.kind != "stream" and is_below(layer.path if layer else origin.site, scope)


def _say_mixer(graph: Graph, scope: str, layers: list[int]) -> None:
    """Say what stands in a mixer; a dense layer must enter it and another leave it."""
    said = {number: _saying(graph, scope, number) for number in layers}
    dense = {said[n][0] for n in layers if (layer := graph.records[n]) is not None and layer.kind in DENSE_KINDS}
    if {"mixer.input", "mixer.output"} <= dense:
        for number, (role, says) in said.items():
            graph.say(graph.records[number], role, says)


def _saying(graph: Graph, scope: str, number: int) -> Saying:
    reads = any(_stands_below(graph, source, scope) for source, _ in graph.flow.origins[number].reads[0])
    is_read = any(_stands_below(graph, reader, scope) for reader, _ in graph.readers[number])
    if is_read and not reads:
        return "mixer.input", "feeds a sequence mixer without softmax"
    if reads and not is_read:
        return "mixer.output", "is the last layer of a sequence mixer without softmax"
    return "mixer.state", "stands inside a sequence mixer without softmax"
