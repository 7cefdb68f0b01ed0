"""Mixers: state-space models, linear attention and gated convolutions, which mix positions without a softmax."""

from collections import Counter

from ..facts.towers import is_below
from .flow import Effect
from .graph import DENSE_KINDS, ENDS, Graph, Verdict, common_path, is_dense

FEW = 4
"""Parts a layer's output may be unpacked into by number: query, key, value and gate. More of them are positions."""


def vote_on_mixers(graph: Graph) -> None:
    """Vote on the layers that enter, leave and stand in every mixer."""
    for members in graph.branches:
        for scope in mixing_scopes(graph, members):
            layers = [n for n in members if graph.records[n] is not None and stands_below(graph, n, scope)]
            has_votes = any(graph.has_vote(graph.records[n]) for n in layers)
            if not has_votes and any(leaves_recurrence(graph, n) for n in layers):
                vote_on_mixer(graph, scope, layers)


def vote_on_mixer(graph: Graph, scope: str, layers: list[int]) -> None:
    """Vote on the layers of a mixer, if a dense layer enters it and another leaves it."""
    verdicts = {number: position_in_mixer(graph, scope, number) for number in layers}
    dense = {verdicts[n][0] for n in layers if (x := graph.records[n]) is not None and x.kind in DENSE_KINDS}
    if {"mixer.input", "mixer.output"} <= dense:
        for number, (role, reason) in verdicts.items():
            graph.vote(graph.records[number], role, reason)


def mixing_scopes(graph: Graph, members: list[int]) -> list[str]:
    """Return the modules in which a branch mixes positions without a softmax, behind a dense layer."""
    scopes = {scope for n in members if (scope := mixing_scope(graph, n)) is not None}
    deeper = scopes - {graph.block(members[0])} or scopes  # a block may also mix its own residual streams
    outermost = (s for s in deeper if not any(s != other and is_below(s, other) for other in deeper))
    attentions = [graph.flow.origins[n].site for n in members if graph.flow.origins[n].kind == "attention"]
    return sorted(s for s in outermost if not any(is_below(site, s) for site in attentions))


def mixing_scope(graph: Graph, number: int) -> str | None:
    """Return the innermost module around a mixing operation and the layers that feed it."""
    origin, block = graph.flow.origins[number], graph.block(number)
    if origin.kind != "product" and not is_recurrent(graph, number):
        return None
    feeders = [f for reads in origin.reads for f in graph.feeders(reads) if graph.block_of(f) == block]
    if not any(map(is_dense, feeders)):
        return None
    return common_path([origin.site, *(f.path.rpartition(".")[0] for f in feeders)])


def is_recurrent(graph: Graph, number: int, decays: int = Effect.DECAYED | Effect.EXPONENTIATED) -> bool:
    """Return whether an origin is a convolution along the sequence, or reads the result of a recurrence.

    That is features taken apart position by position, or with one of the effects that count as decays.
    """
    origin, layer = graph.flow.origins[number], graph.records[number]
    if layer is not None and layer.kind == "conv1d" and max(layer.shape[2:]) > 1:
        return True
    read = [(s, effects) for reads in origin.reads for (s, _), effects in reads.items() if not graph.is_router(s)]
    scanned = Counter(source for source, effects in read if effects & Effect.SCANNED)
    return max(scanned.values(), default=0) > FEW or any(effects & decays for _, effects in read)


def leaves_recurrence(graph: Graph, number: int) -> bool:
    """Return whether a dense layer reads the result of a recurrence; a convolution behind all layers is no mixer."""
    layer, origin = graph.records[number], graph.flow.origins[number]
    if layer is None or layer.kind not in DENSE_KINDS:
        return False
    return is_recurrent(graph, number) or any(is_recurrent(graph, source) for source, _ in origin.reads[0])


def stands_below(graph: Graph, number: int, scope: str) -> bool:
    """Return whether an origin stands in a module."""
    layer, origin = graph.records[number], graph.flow.origins[number]
    return origin.kind not in ENDS and is_below(layer.path if layer else origin.site, scope)


def position_in_mixer(graph: Graph, scope: str, number: int) -> Verdict:
    """Return the verdict on a layer in a mixer, by whether it reads and is read inside."""
    reads = any(stands_below(graph, source, scope) for source, _ in graph.flow.origins[number].reads[0])
    is_read = any(stands_below(graph, reader, scope) for reader, _ in graph.readers[number])
    if is_read and not reads:
        return "mixer.input", "feeds a sequence mixer without softmax"
    if reads and not is_read:
        return "mixer.output", "is the last layer of a sequence mixer without softmax"
    return "mixer.state", "stands inside a sequence mixer without softmax"
