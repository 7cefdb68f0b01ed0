"""Roles by dataflow: from the destination of each layer's output and the origin of its input. No name is read."""

from collections import Counter

from ...domain.vocabulary import CONV_KINDS
from ..facts.towers import is_below
from .attention import vote_on_attention, vote_on_kernel_attention, vote_on_weighted_values
from .feed_forward import vote_on_feed_forward
from .flow import Effect
from .graph import Graph, Verdict, is_dense
from .mixers import vote_on_mixers


def vote_on_roles(graph: Graph) -> dict[str, Counter[Verdict]]:
    """Return the verdicts on each layer, with how often each was given."""
    vote_on_routers(graph)
    vote_on_attention(graph)
    vote_on_kernel_attention(graph)
    vote_on_weighted_values(graph)
    vote_on_mixers(graph)
    vote_on_feed_forward(graph)
    vote_on_patches(graph)
    vote_on_pooled(graph)
    vote_on_convolutions(graph)
    return graph.votes


def vote_on_routers(graph: Graph) -> None:
    """Vote on routers: their outputs are ranked to choose among experts, or scale the output of a shared expert."""
    for path, size in graph.routers.items():
        graph.vote(graph.layers[path], "moe.router", f"its {size} outputs are ranked to choose among as many experts")
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        if layer is not None and origin.layer is not None and layer.out_features == 1 and layer.depth:
            parent = origin.layer[0].rpartition(".")[0]
            if any(is_below(path, parent) for path in graph.routers):
                graph.vote(layer, "moe.router", "its one output scales what the shared expert writes")


def vote_on_patches(graph: Graph) -> None:
    """Vote on the layers outside the blocks that turn the model's input into the input of the blocks."""
    for number, (origin, layer) in enumerate(zip(graph.flow.origins, graph.records, strict=True)):
        if layer is None or layer.depth or layer.kind in ("embedding", "norm") or not origin.reads[0]:
            continue
        is_raw = all(graph.flow.origins[source].kind == "input" for source, _ in origin.reads[0])
        if is_raw and any(graph.block(reader) for reader, _ in graph.readers[number]):
            graph.vote(layer, "embedding.patch", "reads what the model is given, and the blocks read it")


def vote_on_pooled(graph: Graph) -> None:
    """Vote 'other' on layers in blocks that read one pooled vector per image (squeeze-and-excite gates)."""
    pooled: set[int] = set()
    for number, (origin, layer) in enumerate(zip(graph.flow.origins, graph.records, strict=True)):
        if layer is None or not layer.depth:
            continue
        reads = origin.reads[0].items()
        if reads and all(effects & Effect.POOLED or source in pooled for (source, _), effects in reads):
            pooled.add(number)
            if not graph.has_vote(layer):
                graph.vote(layer, "other", "sees one pooled vector per image")


def vote_on_convolutions(graph: Graph) -> None:
    """Vote on pointwise convolutions in blocks without any other vote."""
    for layer in graph.records:
        is_pointwise = layer is not None and layer.kind in CONV_KINDS and layer.depth and is_dense(layer)
        if is_pointwise and not graph.has_vote(layer):
            graph.vote(layer, "conv.pointwise", "mixes the channels of one position, outside a feed-forward network")
