"""Routers: layers whose outputs are ranked to choose among experts, or scale what a shared expert writes."""

from ..facts.towers import is_below
from .flow import Origin
from .graph import Graph


def tell_routers(graph: Graph) -> None:
    """Say which layers route."""
    for path, size in graph.routers.items():
        graph.say(graph.layers[path], "moe.router", f"its {size} outputs are ranked to choose among as many experts")
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        if layer is not None and layer.out_features == 1 and layer.depth and _scales_beside_experts(graph, origin):
            graph.say(layer, "moe.router", "its one output scales what the shared expert writes")


def _scales_beside_experts(graph: Graph, origin: Origin) -> bool:
    assert origin.layer is not None  # noqa: S101 - it has a record
    parent = origin.layer[0].rpartition(".")[0]
    return any(is_below(path, parent) for path in graph.routers)
