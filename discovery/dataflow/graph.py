"""A flow seen with the layers of the model: which blocks they stand in, which are routers, what has been said."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS, Role
from ..facts.towers import is_below
from .flow import Flow, Origin, Sources, Way

DENSE_KINDS = ("linear", "transposed_linear", "expert_parameter")
ENDS = ("stream", "input")
"""Kinds of origin at which a branch ends."""
Saying = tuple[Role, str]
"""(role, why)."""


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
    def readers(self) -> dict[int, list[tuple[int, int]]]:
        """For each origin, the origins that read it, and the way it came."""
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
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
        outer = {block[:position] for block in blocks for position in _dots(block)}
        known = blocks | {path for path in outer if path.rpartition(".")[2].isdecimal()}
        return frozenset(b for b in known if b.rpartition(".")[0] not in experts)

    @cached_property
    def branches(self) -> list[list[int]]:
        """Groups of origins that pass features to one another within a block, residual streams cut."""
        leader = list(range(len(self.flow.origins)))

        def find(number: int) -> int:
            while leader[number] != number:
                leader[number] = leader[leader[number]]
                number = leader[number]
            return number

        for number, origin in enumerate(self.flow.origins):
            if origin.kind in ENDS:
                continue
            for reads in origin.reads:
                for source, _ in reads:
                    if self.flow.origins[source].kind not in ENDS and self.unit(source) == self.unit(number):
                        leader[find(number)] = find(source)
        groups: dict[int, list[int]] = defaultdict(list)
        for number, origin in enumerate(self.flow.origins):
            if origin.kind not in ENDS and self.unit(number) is not None:
                groups[find(number)].append(number)
        return list(groups.values())

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

    def is_router(self, number: int) -> bool:
        """Tell whether an origin is a router."""
        layer = self.records[number]
        return layer is not None and layer.path in self.routers

    @cached_property
    def expert_lists(self) -> frozenset[str]:
        """Paths of lists of experts: as many modules as the router beside them ranks."""
        lists = (self._experts_beside(path, size) for path, size in self.routers.items())
        return frozenset(path for found in lists for path in found)

    def is_expert(self, layer: Layer) -> bool:
        """Tell whether a layer is one of the experts a router chooses from; shared experts are not.

        Fused experts no ranking was seen for are taken for experts: their router may choose by a hash.
        """
        if any(is_below(layer.path, path) for path in self.expert_lists):
            return True
        unit = self.unit_of(layer)
        return layer.kind == "expert_parameter" and not any(unit and is_below(path, unit) for path in self.routers)

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
        """How many children of each module are numbered and named alike: ``0``, ``1`` or ``expert_0``, ``expert_1``."""
        numbered: Counter[tuple[str, str]] = Counter()
        for path in self.module_paths:
            parent, _, name = path.rpartition(".")
            if name[-1:].isdecimal():
                numbered[parent, name.rstrip("0123456789")] += 1
        sizes: Counter[str] = Counter()
        for (parent, _), size in numbered.items():
            sizes[parent] = max(sizes[parent], size)
        return sizes

    @cached_property
    def _stacks(self) -> dict[int, list[str]]:
        stacks: dict[int, list[str]] = defaultdict(list)
        for layer in self.layers.values():
            if layer.kind == "expert_parameter":
                stacks[layer.shape[0]].append(layer.path.rpartition(".")[0])
        return stacks

    def say(self, layer: Layer | None, role: Role, says: str) -> None:
        """Count one vote on what a layer does."""
        if layer is not None and layer.kind not in ("embedding", "norm"):
            self.votes[layer.path][role, says] += 1

    def is_said(self, layer: Layer | None) -> bool:
        """Tell whether anything was said of a layer."""
        return layer is not None and layer.path in self.votes

    def feeders(self, reads: Sources, unit: str | None = None) -> list[Layer]:
        """Return the layers that feed an operand, those that only gate it left out.

        What feeds an attention in a block stands in a block too: positions embedded before the blocks are no keys.
        """
        whole = [source for (source, _), way in reads.items() if not is_gate(way)]
        numbers = dict.fromkeys(whole or [source for source, _ in reads])
        found = [layer for number in numbers for layer in self._through_depthwise(number)]
        fit = [layer for layer in found if layer.kind not in ("embedding", "norm")]
        return [layer for layer in fit if layer.depth or unit is None]

    def _through_depthwise(self, number: int) -> list[Layer]:
        """Return the layer an origin is; for a depthwise convolution, which keeps channels apart, what it reads too.

        The convolution may have a residual connection of its own.
        """
        origin, layer = self.flow.origins[number], self.records[number]
        if layer is not None and not is_depthwise(layer):
            return [layer]
        branch = [self.records[source] for source, _ in origin.reads[-1]] if origin.kind == "stream" else [layer]
        if not branch or not all(part is not None and is_depthwise(part) for part in branch):
            return []
        before = (self.records[source] for source, _ in origin.reads[0] if source != number)
        return [part for part in (*branch, *before) if part is not None]


def is_depthwise(layer: Layer) -> bool:
    """Tell whether a layer is a convolution of each channel by itself."""
    return layer.kind in CONV_KINDS and layer.groups > 1 and layer.groups == layer.in_features


def is_dense(layer: Layer) -> bool:
    """Tell whether a layer mixes all features of one position: dense layers and pointwise convolutions."""
    pointwise = layer.kind in CONV_KINDS and layer.groups == 1 and all(size == 1 for size in layer.shape[2:])
    return layer.kind in DENSE_KINDS or pointwise


def is_gate(way: int) -> bool:
    """Tell whether a source came as an activated factor: it scales, it is not what is read."""
    return bool(way & Way.MULTIPLIED and way & (Way.ACTIVATED | Way.SOFTMAXED))


def common_path(paths: Sequence[str]) -> str:
    """Return the longest path that all paths equal or stand below."""
    segments = [path.split(".") for path in paths]
    shared: list[str] = []
    for level in zip(*segments, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _dots(path: str) -> list[int]:
    return [position for position, character in enumerate(path) if character == "."]
