"""Feed-forward networks and experts, from activation and product."""

from collections import defaultdict
from typing import cast

from ...domain.layers import Layer
from ...domain.vocabulary import Role
from ..facts.towers import is_below
from .flow import Origin, Way
from .graph import Graph, is_dense

_PARTS = ("gate", "up", "gate_up", "down")
_ROLES: dict[tuple[str, str], Role] = {(f, p): cast("Role", f"{f}.{p}") for f in ("mlp", "expert") for p in _PARTS}


def tell_feed_forward(graph: Graph) -> None:
    """Say which layers widen, gate and narrow; inside experts they are the experts'."""
    for number, origin in enumerate(graph.flow.origins):
        down = graph.records[number]
        if down is None or not is_dense(down) or _is_told_otherwise(graph, down):
            continue
        if graph.is_expert(down) or _joins_stream(graph, number):
            _tell_pair(graph, number, origin, down)


def _joins_stream(graph: Graph, number: int) -> bool:
    """A feed-forward network is a branch of a residual stream, where a model has any in its blocks."""
    if not graph.has_streams:
        return True
    if graph.unit(number) is None:
        return False
    own = [(reader, way) for reader, way in graph.readers[number] if graph.unit(reader) == graph.unit(number)]
    return any(graph.flow.origins[reader].kind == "stream" or _projects(graph, reader, way) for reader, way in own)


def _projects(graph: Graph, number: int, way: int) -> bool:
    """Tell whether a layer carries what a feed-forward network wrote to another width, with nothing in between."""
    layer = graph.records[number]
    return layer is not None and is_dense(layer) and not way and len(graph.flow.origins[number].reads[0]) == 1


def _is_told_otherwise(graph: Graph, layer: Layer) -> bool:
    said = graph.votes.get(layer.path, ())
    return any(not role.startswith(("mlp", "expert")) for role, _ in said)


def _tell_pair(graph: Graph, number: int, origin: Origin, down: Layer) -> None:
    """Say what a layer and those it reads are, if they are a feed-forward network."""
    family = "expert" if graph.is_expert(down) else "mlp"
    ups = _ups(graph, number, origin, down)
    said = _gated(ups) or _plain(ups) or {}
    for source, (part, says) in said.items():
        graph.say(graph.records[source], _ROLES[family, part], says)
    if said:
        graph.say(down, _ROLES[family, "down"], "reads what the activation of a feed-forward network leaves")


def _ups(graph: Graph, number: int, origin: Origin, down: Layer) -> dict[int, list[int]]:
    """Return what a layer reads and the ways it came, if all of it may be the wide half of a feed-forward network."""
    sources: dict[int, list[int]] = defaultdict(list)
    for (source, _), way in origin.reads[0].items():
        if not graph.is_router(source):
            sources[source].append(way)
    if not all(_is_up(graph, source, graph.unit(number)) for source in sources):
        return {}
    return {source: ways for source, ways in sources.items() if _returns_to(graph.records[source], down)}


def _returns_to(up: Layer | None, down: Layer) -> bool:
    """A feed-forward network writes as many features as it reads, or it could not join the stream it branched off."""
    read, written = (up and up.in_features), down.out_features
    return read is None or written is None or read == written


def _is_in_unit(graph: Graph, number: int, unit: str | None) -> bool:
    own = graph.unit(number)
    return own == unit or (own is not None and unit is not None and is_below(own, unit))


def _is_up(graph: Graph, source: int, unit: str | None) -> bool:
    layer = graph.records[source]
    if layer is None or not is_dense(layer) or not _is_in_unit(graph, source, unit) or _is_told_otherwise(graph, layer):
        return False
    reads = graph.flow.origins[source].reads[0]
    return not reads or not all(way & Way.POOLED for way in reads.values())


def _gated(ups: dict[int, list[int]]) -> dict[int, tuple[str, str]] | None:
    """Two layers, or two parts of one, multiplied; the activated one is the gate."""
    multiplied = {source: [way for way in ways if way & Way.MULTIPLIED] for source, ways in ups.items()}
    activated = {source for source, ways in multiplied.items() if any(way & Way.ACTIVATED for way in ways)}
    halved = {source for source in activated if len(multiplied[source]) > 1}
    if halved:
        return dict.fromkeys(halved, ("gate_up", "one part of it is activated and multiplied with the other"))
    plain = {source for source, ways in multiplied.items() if ways} - activated
    if not activated or not plain:
        return None
    told = dict.fromkeys(activated, ("gate", "is activated and multiplied with its sibling"))
    return told | dict.fromkeys(plain, ("up", "is multiplied with its activated sibling"))


def _plain(ups: dict[int, list[int]]) -> dict[int, tuple[str, str]] | None:
    activated = {s for s, ways in ups.items() if any(way & Way.ACTIVATED for way in ways)}
    if len(activated) != len(ups):
        return None
    return dict.fromkeys(activated, ("up", "is activated and read by the next layer"))
