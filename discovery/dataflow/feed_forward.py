"""Feed-forward networks and experts, from activation and product."""

from collections import defaultdict
from typing import TYPE_CHECKING, cast

from ...domain.layers import Layer
from ..facts.towers import is_below
from .flow import Effect, Origin
from .graph import Graph, is_dense

if TYPE_CHECKING:
    from ...domain.vocabulary import Role


def vote_on_feed_forward(graph: Graph) -> None:
    """Vote on the layers that widen, gate and narrow; those inside experts have the experts' roles."""
    for number, origin in enumerate(graph.flow.origins):
        down = graph.records[number]
        if down is None or not is_dense(down) or _has_other_role(graph, down):
            continue
        is_expert = graph.is_expert(down)
        if not is_expert and not joins_stream(graph, number):
            continue
        ups = wide_half(graph, number, origin, down)
        parts = gated_pair(ups) or activated_ups(ups)
        family = "expert" if is_expert else "mlp"
        for source, (part, reason) in parts.items():
            graph.vote(graph.records[source], cast("Role", f"{family}.{part}"), reason)
        if parts:
            reason = "reads what the activation of a feed-forward network leaves"
            graph.vote(down, cast("Role", f"{family}.down"), reason)


def joins_stream(graph: Graph, number: int) -> bool:
    """Return whether a layer ends a branch of a residual stream, where a model has any in its blocks.

    A dense layer may carry the result to another width, with nothing in between. The block of the stream may be one
    around that of the layer: a list of the attention and the feed-forward network.
    """
    if not graph.has_streams:
        return True
    block = graph.block(number)
    if block is None:
        return False
    for reader, effects in graph.readers[number]:
        layer, origin = graph.records[reader], graph.flow.origins[reader]
        carries_on = layer is not None and is_dense(layer) and not effects and len(origin.reads[0]) == 1
        around = graph.block(reader)
        is_inside = around is not None and is_below(block, around) if origin.kind == "stream" else around == block
        if (origin.kind == "stream" or carries_on) and is_inside:
            return True
    return False


def _has_other_role(graph: Graph, layer: Layer) -> bool:
    return any(not role.startswith(("mlp", "expert")) for role, _ in graph.votes.get(layer.path, ()))


def wide_half(graph: Graph, number: int, origin: Origin, down: Layer) -> dict[int, list[int]]:
    """Return (source, effects) of the layers a layer reads, if all may be the wide half of a feed-forward network.

    A feed-forward network writes as many features as it reads, or it could not join the stream it branched off.
    """
    sources: dict[int, list[int]] = defaultdict(list)
    for (source, _), effects in origin.reads[0].items():
        if not graph.is_router(source):
            sources[source].append(effects)
    if not all(may_widen(graph, source, graph.block(number)) for source in sources):
        return {}
    widths = {source: up.in_features if (up := graph.records[source]) else None for source in sources}
    return {s: e for s, e in sources.items() if widths[s] is None or down.out_features in (None, widths[s])}


def may_widen(graph: Graph, source: int, block: str | None) -> bool:
    """Return whether an origin is a dense layer in a block, of no other role, and not on a pooled vector."""
    layer, own = graph.records[source], graph.block(source)
    is_inside = own == block or (own is not None and block is not None and is_below(own, block))
    if layer is None or not is_dense(layer) or not is_inside or _has_other_role(graph, layer):
        return False
    reads = graph.flow.origins[source].reads[0]
    return not reads or not all(effects & Effect.POOLED for effects in reads.values())


def gated_pair(ups: dict[int, list[int]]) -> dict[int, tuple[str, str]]:
    """Return (part, reason) of two layers, or two parts of one, that are multiplied; the activated one is the gate."""
    multiplied = {source: [e for e in effects if e & Effect.MULTIPLIED] for source, effects in ups.items()}
    activated = {source for source, effects in multiplied.items() if any(e & Effect.ACTIVATED for e in effects)}
    halved = {source for source in activated if len(multiplied[source]) > 1}
    if halved:
        return dict.fromkeys(halved, ("gate_up", "one part of it is activated and multiplied with the other"))
    plain = {source for source, effects in multiplied.items() if effects} - activated
    if not activated or not plain:
        return {}
    gates = dict.fromkeys(activated, ("gate", "is activated and multiplied with its sibling"))
    return gates | dict.fromkeys(plain, ("up", "is multiplied with its activated sibling"))


def activated_ups(ups: dict[int, list[int]]) -> dict[int, tuple[str, str]]:
    """Return (part, reason) of the layers of a network without gate: all are activated."""
    activated = {source for source, effects in ups.items() if any(e & Effect.ACTIVATED for e in effects)}
    if len(activated) != len(ups):
        return {}
    return dict.fromkeys(activated, ("up", "is activated and read by the next layer"))
