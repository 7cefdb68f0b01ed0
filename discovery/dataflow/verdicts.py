"""Roles by dataflow: what each layer's output reaches and what its input came from. No name is read."""

from collections import Counter

from .attention import tell_attention, tell_weighted
from .feed_forward import tell_feed_forward
from .graph import Graph, Saying
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
    return graph.votes
