"""Roles by dataflow: what each layer's output reaches and what its input came from. No name is read."""

from collections import Counter

from ...domain.vocabulary import CONV_KINDS
from .attention import tell_attention, tell_weighted
from .feed_forward import tell_feed_forward
from .flow import Way
from .graph import Graph, Saying, is_dense
from .kernels import tell_kernel_attention
from .mixers import tell_mixers
from .routers import tell_routers


def tell_roles(graph: Graph) -> dict[str, Counter[Saying]]:
    """Return what the flow says of each layer, with how often it says so."""
    tell_routers(graph)
    tell_attention(graph)
    tell_kernel_attention(graph)
    tell_weighted(graph)
    tell_mixers(graph)
    tell_feed_forward(graph)
    tell_patches(graph)
    tell_pooled(graph)
    tell_convolutions(graph)
    return graph.votes


def tell_patches(graph: Graph) -> None:
    """Say which layers outside the blocks turn what the model is given into what the blocks read."""
    for number, (origin, layer) in enumerate(zip(graph.flow.origins, graph.records, strict=True)):
        if layer is None or layer.depth or layer.kind in ("embedding", "norm") or not origin.reads[0]:
            continue
        is_raw = all(graph.flow.origins[source].kind == "input" for source, _ in origin.reads[0])
        if is_raw and any(graph.unit(reader) for reader, _ in graph.readers[number]):
            graph.say(layer, "embedding.patch", "reads what the model is given, and the blocks read it")


def tell_pooled(graph: Graph) -> None:
    """Say of layers in blocks that see one pooled vector per image what they are not (squeeze-and-excite gates)."""
    pooled: set[int] = set()
    for number, (origin, layer) in enumerate(zip(graph.flow.origins, graph.records, strict=True)):
        if layer is None or not layer.depth:
            continue
        reads = origin.reads[0].items()
        if reads and all(way & Way.POOLED or source in pooled for (source, _), way in reads):
            pooled.add(number)
            if not graph.is_said(layer):
                graph.say(layer, "other", "sees one pooled vector per image")


def tell_convolutions(graph: Graph) -> None:
    """Say of pointwise convolutions in blocks that nothing else was said of what they are: one position each."""
    for layer in graph.records:
        is_pointwise = layer is not None and layer.kind in CONV_KINDS and layer.depth and is_dense(layer)
        if is_pointwise and not graph.is_said(layer):
            graph.say(layer, "conv.pointwise", "mixes the channels of one position, outside a feed-forward network")
