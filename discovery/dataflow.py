"""Roles by dataflow: what each layer's output reaches and what its input came from. No name is read."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..records import Layer
from ..vocabulary import Role
from .flow import Flow, Origin, Sources, Way
from .layers import CONV_KINDS
from .towers import is_below

OPERANDS = ("query", "key", "value")
DENSE_KINDS = ("linear", "transposed_linear", "expert_parameter")
Saying = tuple[Role, str]


@dataclass
class Graph:
    """One flow seen with the layers of the model.

    Attributes:
        layers: Every layer by path.
        module_paths: Every module path.
    """

    flow: Flow
    layers: dict[str, Layer]
    module_paths: Sequence[str]
    votes: dict[str, Counter[Saying]] = field(default_factory=lambda: defaultdict(Counter))

    def layer(self, origin: Origin) -> Layer | None:
        """Return the record of the layer an origin is, if it is one."""
        if origin.layer is None:
            return None
        path, name = origin.layer
        return self.layers.get(f"{path}.{name}") or self.layers.get(path)

    @cached_property
    def records(self) -> list[Layer | None]:
        """The layer of each origin."""
        return [self.layer(origin) for origin in self.flow.origins]

    @cached_property
    def readers(self) -> dict[int, list[tuple[int, Way]]]:
        """For each origin, the origins that read it, and the way it came."""
        found: dict[int, list[tuple[int, Way]]] = defaultdict(list)
        for number, origin in enumerate(self.flow.origins):
            for reads in origin.reads:
                for (source, _), way in reads.items():
                    found[source].append((number, way))
        return found

    def unit(self, number: int) -> str | None:
        """Return the repeated block an origin stands in; experts stand in the block of their router."""
        record = self.records[number]
        if record is not None:
            return self.unit_of(record)
        return self._block_of_site(self.flow.origins[number].site)

    def unit_of(self, layer: Layer) -> str | None:
        """Return the repeated block a layer stands in, lists of experts not counted."""
        for experts in self.expert_lists:
            if is_below(layer.path, experts):
                return self._block_of_site(experts)
        return layer.block

    def _block_of_site(self, site: str) -> str | None:
        while site:
            if site in self._blocks:
                return site
            site = site.rpartition(".")[0]
        return None

    @cached_property
    def _blocks(self) -> frozenset[str]:
        experts = self.expert_lists
        blocks = {layer.block for layer in self.layers.values() if layer.block}
        # An outer block whose own layers all stand in inner blocks has no layer of its own.
        outer = {block[: position] for block in blocks for position in _dots(block)}
        known = blocks | {path for path in outer if path.rpartition(".")[2].isdecimal()}
        return frozenset(b for b in known if b.rpartition(".")[0] not in experts)

    @cached_property
    def has_streams(self) -> bool:
        """Whether any block holds a residual stream."""
        return any(o.kind == "stream" and self.unit(n) for n, o in enumerate(self.flow.origins))

    @cached_property
    def routers(self) -> dict[str, int]:
        """Paths of the layers whose outputs are ranked to choose among experts, with how many there are."""
        found: dict[str, int] = {}
        for ranking in self.flow.rankings:
            for origin in self.flow.layers(ranking.sources):
                layer = self.layer(origin)
                if layer is not None and layer.depth and self._experts_beside(layer.path, ranking.size):
                    found[layer.path] = ranking.size
        return found

    @cached_property
    def expert_lists(self) -> frozenset[str]:
        """Paths of lists of experts: as many modules as the router beside them ranks."""
        lists = (self._experts_beside(path, size) for path, size in self.routers.items())
        return frozenset(path for found in lists for path in found)

    def is_expert(self, layer: Layer) -> bool:
        """Tell whether a layer is fused experts or stands in one of a list of experts."""
        return layer.kind == "expert_parameter" or any(is_below(layer.path, path) for path in self.expert_lists)

    def _experts_beside(self, path: str, size: int) -> frozenset[str]:
        """Return lists of ``size`` modules, or stacks of ``size`` matrices, in the nearest module around a router."""
        around = path.rpartition(".")[0]
        for _ in range(3):
            if not around:
                break
            found = {p for p, n in self._list_sizes.items() if n == size and is_below(p, around)}
            found |= {p for p in self._stacks.get(size, ()) if is_below(p, around)}
            if found:
                return frozenset(found)
            around = around.rpartition(".")[0]
        return frozenset()

    @cached_property
    def _list_sizes(self) -> Counter[str]:
        children: dict[str, set[str]] = defaultdict(set)
        sizes: Counter[str] = Counter()
        for path in self.module_paths:
            parent, _, name = path.rpartition(".")
            children[parent].add(name.rstrip("0123456789"))
            sizes[parent] += 1
        return Counter({parent: sizes[parent] for parent, stems in children.items() if len(stems) == 1})

    @cached_property
    def _stacks(self) -> dict[int, list[str]]:
        stacks: dict[int, list[str]] = defaultdict(list)
        for layer in self.layers.values():
            if layer.kind == "expert_parameter":
                stacks[layer.shape[0]].append(layer.path.rpartition(".")[0])
        return stacks


def _dots(path: str) -> list[int]:
    return [position for position, character in enumerate(path) if character == "."]


def tell_roles(graph: Graph) -> dict[str, Counter[Saying]]:
    """Return what the flow says of each layer, with how often it says so."""
    _tell_routers(graph)
    _tell_attention(graph)
    _tell_weighted(graph)
    _tell_mixers(graph)
    _tell_feed_forward(graph)
    return graph.votes


def _say(graph: Graph, layer: Layer | None, role: Role, says: str) -> None:
    if layer is not None and layer.kind not in ("embedding", "norm"):
        graph.votes[layer.path][role, says] += 1


def _is_said(graph: Graph, layer: Layer | None) -> bool:
    return layer is not None and layer.path in graph.votes


# --- routers --------------------------------------------------------------------------------------------------------


def _tell_routers(graph: Graph) -> None:
    for path, size in graph.routers.items():
        _say(graph, graph.layers[path], "moe.router", f"its {size} outputs are ranked to choose among as many experts")
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        if layer is not None and layer.out_features == 1 and layer.depth and _scales_beside_experts(graph, origin):
            _say(graph, layer, "moe.router", "its one output scales what the shared expert writes")


def _scales_beside_experts(graph: Graph, origin: Origin) -> bool:
    assert origin.layer is not None  # noqa: S101 - it has a record
    parent = origin.layer[0].rpartition(".")[0]
    return any(is_below(path, parent) for path in graph.routers)


# --- attention ------------------------------------------------------------------------------------------------------


def _tell_attention(graph: Graph) -> None:
    attentions = [(n, o) for n, o in enumerate(graph.flow.origins) if o.kind == "attention"]
    operands: dict[str, dict[str, str]] = defaultdict(dict)
    scopes: dict[str, str] = {}
    projected: set[int] = set()
    for number, attention in attentions:
        by_operand = [_feeders(graph, reads, graph.unit(number)) for reads in attention.reads]
        scope = _scope(attention, [layer for layers in by_operand for layer in layers])
        projected.update([number] if any(by_operand) else [])
        for operand, layers in zip(OPERANDS, by_operand, strict=True):
            for layer in layers:
                operands[layer.path][operand] = attention.name
                scopes[layer.path] = scope
    latents = _latents(graph, operands, scopes)
    for path, found in operands.items():
        if path not in latents:
            _say_operands(graph, graph.layers[path], found)
    for path in latents:
        _say(graph, graph.layers[path], "attention.latent", "what it writes is expanded by another layer on its way to attention")
    for number in projected:
        _tell_readers(graph, number, set(operands) | latents)


def _feeders(graph: Graph, reads: Sources, unit: str | None = None) -> list[Layer]:
    """Return the layers that feed an operand, those that only gate it left out.

    What feeds an attention in a block stands in a block too: positions embedded before the blocks are no keys.
    """
    whole = [source for (source, _), way in reads.items() if not _is_gate(way)]
    numbers = dict.fromkeys(whole or [source for source, _ in reads])
    found = [layer for number in numbers for layer in _through_depthwise(graph, number)]
    fit = [layer for layer in found if layer.kind not in ("embedding", "norm")]
    return [layer for layer in fit if layer.depth or unit is None]


def _through_depthwise(graph: Graph, number: int) -> list[Layer]:
    """Return the layer an origin is; for a depthwise convolution, which keeps channels apart, what it reads too."""
    layer = graph.records[number]
    if layer is None:
        return []
    if not is_depthwise(layer):
        return [layer]
    before = (source for source, _ in graph.flow.origins[number].reads[0] if source != number)
    return [layer, *(known for source in before if (known := graph.records[source]) is not None)]


def is_depthwise(layer: Layer) -> bool:
    """Tell whether a layer is a convolution of each channel by itself."""
    return layer.kind in CONV_KINDS and layer.groups > 1 and layer.groups == layer.in_features


def _is_gate(way: Way) -> bool:
    return bool(way & Way.MULTIPLIED and way & (Way.ACTIVATED | Way.SOFTMAXED))


def _scope(attention: Origin, layers: Iterable[Layer]) -> str:
    """Return the innermost module that holds an attention and what feeds it."""
    parents = [attention.site, *(layer.path.rpartition(".")[0] for layer in layers)]
    return common_path(parents)


def common_path(paths: Sequence[str]) -> str:
    """Return the longest path that all paths equal or stand below."""
    segments = [path.split(".") for path in paths]
    shared: list[str] = []
    for level in zip(*segments, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _latents(graph: Graph, operands: dict[str, dict[str, str]], scopes: dict[str, str]) -> set[str]:
    """Layers whose output another layer of the same attention expands: the low-rank half of a projection."""
    found: set[str] = set()
    for origin, layer in zip(graph.flow.origins, graph.records, strict=True):
        if layer is None or layer.path not in operands:
            continue
        for before in _feeders(graph, origin.reads[0]):
            inside = scopes[layer.path] and is_below(before.path, scopes[layer.path])
            if inside and before.path != layer.path and before.kind in DENSE_KINDS:
                found.add(before.path)
    return found


_ROLE_OF_OPERANDS: dict[frozenset[str], Role] = {
    frozenset({"query"}): "attention.query",
    frozenset({"key"}): "attention.key",
    frozenset({"value"}): "attention.value",
    frozenset({"key", "value"}): "attention.kv",
    frozenset({"query", "key"}): "attention.query",
    frozenset({"query", "value"}): "attention.qkv",
    frozenset(OPERANDS): "attention.qkv",
}


def _say_operands(graph: Graph, layer: Layer, found: dict[str, str]) -> None:
    if is_depthwise(layer):
        return
    role = _ROLE_OF_OPERANDS[frozenset(found)]
    named = " and ".join(operand for operand in OPERANDS if operand in found)
    how = ", ".join(dict.fromkeys(found.values()))
    _say(graph, layer, role, f"reaches the {named} operand of attention ({how})")


def _tell_readers(graph: Graph, number: int, operands: set[str]) -> None:
    """Say what reads the result of an attention: its output, or the low-rank half of it and then its output."""
    unit, site = graph.unit(number), graph.flow.origins[number].site
    for reader, _ in graph.readers[number]:
        layer = graph.records[reader]
        if layer is None or layer.path in operands or graph.unit(reader) != unit:
            continue
        last = _expands_low_rank(graph, reader, site)
        if last is not None:
            _say(graph, layer, "attention.latent", "what it writes is expanded by another layer that leaves attention")
        _say(graph, last or layer, "attention.output", "is the next layer on the result of attention")


def _expands_low_rank(graph: Graph, number: int, site: str) -> Layer | None:
    """Return the layer of the same attention that alone reads a layer, and that only."""
    readers = {reader for reader, way in graph.readers[number] if not way}
    layers = [graph.records[reader] for reader in readers if graph.flow.origins[reader].kind != "stream"]
    if len(readers) != 1 or not layers or layers[0] is None or not is_below(layers[0].path, site):
        return None
    return layers[0] if layers[0].kind in DENSE_KINDS else None


def _tell_weighted(graph: Graph) -> None:
    """Values weighted by the softmax of a layer, not of a product: deformable and outlook attention."""
    for number, origin in enumerate(graph.flow.origins):
        for reads in origin.reads if origin.kind in ("layer", "product") else ():
            _tell_weighted_values(graph, number, reads if origin.kind == "layer" else origin.reads[0] | origin.reads[1])


def _tell_weighted_values(graph: Graph, number: int, reads: Sources) -> None:
    unit = graph.unit(number)
    inside = {s: way for (s, _), way in reads.items() if graph.records[s] is not None and graph.unit(s) == unit}
    weights = {s for s, way in inside.items() if way & Way.SOFTMAXED and graph.records[s].path not in graph.routers}
    values = {s for s, way in inside.items() if not way & (Way.SOFTMAXED | Way.ACTIVATED)} - weights
    is_weighted = graph.flow.origins[number].kind == "product" or any(inside[s] & Way.MULTIPLIED for s in values)
    if unit is None or not weights or not values or not is_weighted:
        return
    for source in values:
        if graph.records[source].kind in DENSE_KINDS and not _is_said(graph, graph.records[source]):
            _say(graph, graph.records[source], "attention.value", "is weighted by the softmax of another layer")
    ends = [number] if graph.records[number] else [reader for reader, _ in graph.readers[number]]
    for end in ends:
        _say(graph, graph.records[end], "attention.output", "is the next layer on the weighted values")


# --- mixers ---------------------------------------------------------------------------------------------------------


def _tell_mixers(graph: Graph) -> None:
    for members in _branches(graph):
        for scope in _mixing_scopes(graph, members):
            inside = [n for n in members if _stands_below(graph, n, scope)]
            if not any(_is_said(graph, graph.records[n]) for n in inside):  # weighted values are no mixer
                _say_mixer(graph, inside, set(members))


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
    if any(graph.flow.origins[n].kind == "attention" for n in members):
        return []
    scopes = {scope for n in members if (scope := _mixing_scope(graph, n)) is not None}
    return sorted(s for s in scopes if not any(s != other and is_below(s, other) for other in scopes))


def _mixing_scope(graph: Graph, number: int) -> str | None:
    """Return the innermost module that holds a mixing operation and what feeds it."""
    origin, layer = graph.flow.origins[number], graph.records[number]
    unit = graph.unit(number)
    feeders = [f for reads in origin.reads for f in _feeders(graph, reads) if graph.unit_of(f) == unit]
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
    layer = graph.records[number]
    return layer is not None and is_below(layer.path, scope)


def _say_mixer(graph: Graph, inside: list[int], branch: set[int]) -> None:
    """Say what stands in a mixer; a dense layer must enter it and another leave it."""
    said: dict[int, Saying] = {}
    for number in inside:
        reads_branch = any(source in branch for source, _ in graph.flow.origins[number].reads[0])
        is_read = any(reader in branch for reader, _ in graph.readers[number])
        if not reads_branch and is_read:
            said[number] = "mixer.input", "feeds a sequence mixer without softmax"
        elif reads_branch and not is_read:
            said[number] = "mixer.output", "is the last layer of a sequence mixer without softmax"
        else:
            said[number] = "mixer.state", "stands inside a sequence mixer without softmax"
    dense = {said[n][0] for n in inside if (layer := graph.records[n]) is not None and layer.kind in DENSE_KINDS}
    if {"mixer.input", "mixer.output"} <= dense:
        for number, (role, says) in said.items():
            _say(graph, graph.records[number], role, says)


# --- feed-forward networks ------------------------------------------------------------------------------------------


def _tell_feed_forward(graph: Graph) -> None:
    for number, origin in enumerate(graph.flow.origins):
        down = graph.records[number]
        fits = down is not None and _is_dense(down) and not _is_told_otherwise(graph, down)
        if fits and _joins_stream(graph, number):
            _tell_pair(graph, number, origin, down)


def _joins_stream(graph: Graph, number: int) -> bool:
    """A feed-forward network is a branch of a residual stream, where a model has any in its blocks."""
    if not graph.has_streams:
        return True
    if graph.unit(number) is None:
        return False
    readers = (reader for reader, _ in graph.readers[number] if graph.flow.origins[reader].kind == "stream")
    return any(graph.unit(reader) == graph.unit(number) for reader in readers)


def _is_dense(layer: Layer) -> bool:
    pointwise = layer.kind in CONV_KINDS and layer.groups == 1 and all(size == 1 for size in layer.shape[2:])
    return layer.kind in DENSE_KINDS or pointwise


def _is_told_otherwise(graph: Graph, layer: Layer) -> bool:
    said = graph.votes.get(layer.path, ())
    return any(not role.startswith(("mlp", "expert")) for role, _ in said)


def _tell_pair(graph: Graph, number: int, origin: Origin, down: Layer | None) -> None:
    """Say what a layer and those it reads are, if they are a feed-forward network."""
    unit = graph.unit(number)
    sources: dict[int, list[Way]] = defaultdict(list)
    for (source, _), way in origin.reads[0].items():
        if graph.records[source] is not None and graph.records[source].path in graph.routers:
            continue
        sources[source].append(way)
    ups = {s: ways for s, ways in sources.items() if _is_up(graph, s, unit)}
    if not ups or len(ups) < len(sources):
        return
    family = "expert" if graph.is_expert(down) else "mlp"
    said = _gated(ups) or _plain(ups)
    if said is None:
        return
    for source, (part, says) in said.items():
        _say(graph, graph.records[source], f"{family}.{part}", says)
    _say(graph, down, f"{family}.down", "reads what the activation of a feed-forward network leaves")


def _is_up(graph: Graph, source: int, unit: str | None) -> bool:
    layer = graph.records[source]
    if layer is None or not _is_dense(layer) or graph.unit(source) != unit or _is_told_otherwise(graph, layer):
        return False
    reads = graph.flow.origins[source].reads[0]
    return not any(way & Way.POOLED for way in reads.values())


def _gated(ups: dict[int, list[Way]]) -> dict[int, tuple[str, str]] | None:
    """Two layers, or two parts of one, multiplied; the activated one is the gate."""
    ways = [(source, way) for source, found in ups.items() for way in found if way & Way.MULTIPLIED]
    activated = [source for source, way in ways if way & Way.ACTIVATED]
    plain = [source for source, way in ways if not way & Way.ACTIVATED]
    if not activated or not plain:
        return None
    both = set(activated) & set(plain)
    if both:
        return {s: ("gate_up", "one part of it is activated and multiplied with the other") for s in both}
    told = {s: ("gate", "is activated and multiplied with its sibling") for s in activated}
    return told | {s: ("up", "is multiplied with its activated sibling") for s in plain}


def _plain(ups: dict[int, list[Way]]) -> dict[int, tuple[str, str]] | None:
    activated = {s for s, ways in ups.items() if any(way & Way.ACTIVATED for way in ways)}
    if len(activated) != len(ups):
        return None
    return {s: ("up", "is activated and read by the next layer") for s in activated}
