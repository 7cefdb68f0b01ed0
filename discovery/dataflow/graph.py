"""A flow with the layers of the model: their blocks, routers and experts, and the votes on their roles."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import takewhile
from operator import or_

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS, Role
from ..facts.towers import is_below
from .flow import Effect, Flow, Origin, Sources

DENSE_KINDS = ("linear", "transposed_linear", "expert_parameter")
ENDS = ("stream", "input")
"""Kinds of origin at which a branch ends."""
Verdict = tuple[Role, str]
"""(role, reason)."""


@dataclass
class Graph:
    """One flow with the layers of the model.

    Attributes:
        layers: Every layer by path.
        module_paths: Every module path.
        votes: For each layer its verdicts, with how often each was given.
    """

    flow: Flow
    layers: dict[str, Layer]
    module_paths: Sequence[str]
    votes: dict[str, Counter[Verdict]] = field(default_factory=lambda: defaultdict(Counter))

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
        """(reader, effects) for each origin: the origins that read it, and the effects on the way."""
        readers: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, origin in enumerate(self.flow.origins):
            for reads in origin.reads:
                for (source, _), effects in reads.items():
                    readers[source].append((number, effects))
        return readers

    # --- blocks --------------------------------------------------------------------------------------------------

    def block(self, number: int) -> str | None:
        """Return the repeated block around an origin; experts stand in the block of their router."""
        return self._blocks_of_origins[number]

    @cached_property
    def _blocks_of_origins(self) -> list[str | None]:
        found: list[str | None] = []
        for origin, record in zip(self.flow.origins, self.records, strict=True):
            inside = self._block_around(origin.site) if record is None else self.block_of(record)
            found.append(inside or (self._block_of_operands(origin, found) if record is None else None))
        return found

    def _block_of_operands(self, origin: Origin, earlier: Sequence[str | None]) -> str | None:
        """Return the block around all operands of an operation outside the blocks; of a stream, around its branch.

        The forward of another module may compute with the parts of a block: the block is a list, or the model a graph.
        """
        reads = origin.reads[-1:] if origin.kind == "stream" else origin.reads
        blocks = {earlier[source] for operand in reads for source, _ in operand}
        around = common_path([block for block in blocks if block]) if blocks and None not in blocks else ""
        return self._block_around(around)

    def block_of(self, layer: Layer) -> str | None:
        """Return the repeated block around a layer; a list of experts is no list of blocks."""
        for experts in self.expert_lists:
            if is_below(layer.path, experts):
                return self._block_around(experts)
        return layer.block

    def _block_around(self, site: str) -> str | None:
        while site and site not in self.blocks:
            site = site.rpartition(".")[0]
        return site or None

    @cached_property
    def blocks(self) -> frozenset[str]:
        """Paths of the repeated blocks; an outer one may own no layer outside the inner ones."""
        blocks = {layer.block for layer in self.layers.values() if layer.block}
        segments = [block.split(".") for block in blocks]
        outer = {
            ".".join(parts[:end]) for parts in segments for end in range(1, len(parts)) if parts[end - 1].isdecimal()
        }
        return frozenset(block for block in blocks | outer if block.rpartition(".")[0] not in self.expert_lists)

    @cached_property
    def branches(self) -> list[list[int]]:
        """Groups of origins that pass features to one another within a block, residual streams cut."""
        leader = list(range(len(self.flow.origins)))

        def find(number: int) -> int:
            while leader[number] != number:
                leader[number] = leader[leader[number]]
                number = leader[number]
            return number

        for source, number in self.links():
            leader[find(number)] = find(source)
        groups: dict[int, list[int]] = defaultdict(list)
        for number, origin in enumerate(self.flow.origins):
            if origin.kind not in ENDS and self.block(number) is not None:
                groups[find(number)].append(number)
        return list(groups.values())

    def links(self) -> Iterator[tuple[int, int]]:
        """Yield (source, reader) for each read within a block, residual streams left out."""
        for number, origin in enumerate(self.flow.origins):
            for source in {source for reads in origin.reads for source, _ in reads}:
                kinds = origin.kind, self.flow.origins[source].kind
                if ENDS[0] not in kinds and ENDS[1] not in kinds and self.block(source) == self.block(number):
                    yield source, number

    @cached_property
    def has_streams(self) -> bool:
        """Whether any block holds a residual stream."""
        return any(o.kind == "stream" and self.block(n) for n, o in enumerate(self.flow.origins))

    # --- routers and experts -------------------------------------------------------------------------------------

    @cached_property
    def routers(self) -> dict[str, int]:
        """Paths of the layers whose outputs are ranked to choose among experts, with the number of experts."""
        routers: dict[str, int] = {}
        for ranking in self.flow.rankings:
            for origin in self.flow.layers(ranking.sources):
                layer = self.layer(origin)
                if layer is not None and layer.depth and self._experts_beside(layer.path, ranking.size):
                    routers[layer.path] = ranking.size
        return routers

    @cached_property
    def chosen_experts(self) -> frozenset[int]:
        """The numbers of experts that the routers choose for a token: by a top-k, or by a maximum for each."""
        chosen: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for ranking in self.flow.rankings:
            for layer in filter(None, map(self.layer, self.flow.layers(ranking.sources))):
                if ranking.chosen and ranking.size == self.routers.get(layer.path):
                    chosen[layer.path][ranking.name].append(ranking.chosen)
        called = self.flow.tape.called
        counts = (
            (max(names["topk"], default=0), *(len(names[one]) // max(1, called[path]) for one in ("argmax", "max")))
            for path, names in chosen.items()
        )
        return frozenset(next(filter(None, found)) for found in counts if any(found))

    def is_router(self, number: int) -> bool:
        """Return whether an origin is a router."""
        layer = self.records[number]
        return layer is not None and layer.path in self.routers

    @cached_property
    def expert_lists(self) -> frozenset[str]:
        """Paths of lists of experts: as many modules as the router beside them ranks."""
        return frozenset[str]().union(*(self._experts_beside(path, size) for path, size in self.routers.items()))

    def is_expert(self, layer: Layer) -> bool:
        """Return whether a layer is one of the experts a router chooses from; shared experts are not.

        Fused experts without a ranking count as experts: their router may choose by a hash.
        """
        if any(is_below(layer.path, path) for path in self.expert_lists):
            return True
        block = self.block_of(layer)
        return is_stack(layer) and not any(block and is_below(path, block) for path in self.routers)

    def _experts_beside(self, path: str, size: int) -> frozenset[str]:
        """Return lists of ``size`` modules, or stacks of ``size`` matrices, in the nearest module around a router."""
        around = path.rpartition(".")[0]
        for _ in range(3):
            lists = (other for other in self.sized_lists.get(size, ()) if around and is_below(other, around))
            experts = {path for path in lists if not self._reads_apart(path)}
            if experts:
                return frozenset(experts)
            around = around.rpartition(".")[0]
        return self._fewer_experts_beside(path) if self.layers[path].out_features == size else frozenset()

    def _fewer_experts_beside(self, path: str) -> frozenset[str]:
        """Return stacks right in a module around a router with more outputs: its other experts compute nothing."""
        size = self.layers[path].out_features or 0
        smaller = {owner for owner, number in self.stacks.items() if number < size}
        return frozenset(owner for owner in smaller if is_below(path, owner.rpartition(".")[0] or owner))

    @cached_property
    def stacks(self) -> dict[str, int]:
        """The number of experts of each module with stacks of matrices, the smallest of its stacks."""
        stacks: dict[str, int] = {}
        for layer in filter(is_stack, self.layers.values()):
            owner = layer.path.rpartition(".")[0]
            stacks[owner] = min(layer.shape[0], stacks.get(owner, layer.shape[0]))
        return stacks

    def _reads_apart(self, modules: str) -> bool:
        """Return whether the members of a list read nothing in common, so that none stands for another.

        Experts share their input; the heads of a detector, one for each of its layers, do not.
        """
        reads: dict[str, set[int]] = defaultdict(set)
        for number, layer in enumerate(self.records):
            if layer is not None and layer.path.startswith(f"{modules}.") and layer.kind != "expert_parameter":
                member = layer.path[len(modules) + 1 :].partition(".")[0]
                reads[member] |= self._sources_outside(number, f"{modules}.{member}")
        return len(reads) > 1 and sum(map(len, reads.values())) == len(set[int]().union(*reads.values()))

    def _sources_outside(self, number: int, module: str) -> set[int]:
        """Return the sources of an origin that are no layers of a module."""
        sources = {source for reads in self.flow.origins[number].reads for source, _ in reads}
        return {source for source in sources if not (x := self.records[source]) or not is_below(x.path, module)}

    @cached_property
    def sized_lists(self) -> dict[int, set[str]]:
        """Paths of lists of modules and of modules with stacks of matrices, by length.

        Modules of a list are numbered and named alike: ``0``, ``1`` or ``expert_0``, ``expert_1``. A single module is
        no list: much is numbered ``0``.
        """
        numbered: Counter[tuple[str, str]] = Counter()
        for path in self.module_paths:
            parent, _, name = path.rpartition(".")
            if name[-1:].isdecimal():
                numbered[parent, name.rstrip("0123456789")] += 1
        longest: dict[str, int] = defaultdict(int)
        for (parent, _), size in numbered.items():
            longest[parent] = max(longest[parent], size)
        lists: dict[int, set[str]] = defaultdict(set)
        for parent, size in longest.items():
            if size > 1:
                lists[size].add(parent)
        for layer in filter(is_stack, self.layers.values()):
            lists[layer.shape[0]].add(layer.path.rpartition(".")[0])
        return dict(lists)

    # --- votes ---------------------------------------------------------------------------------------------------

    def vote(self, layer: Layer | None, role: Role, reason: str) -> None:
        """Count one vote for the role of a layer; embeddings and norms are not voted on."""
        if layer is not None and layer.kind not in ("embedding", "norm"):
            self.votes[layer.path][role, reason] += 1

    def has_vote(self, layer: Layer | None) -> bool:
        """Return whether a layer has any vote."""
        return layer is not None and layer.path in self.votes

    def decide(self, number: int, role: Role, reason: str) -> None:
        """Give the layer that an origin is one role, whatever was voted before but a part in an attention."""
        layer = self.records[number]
        if layer is not None and not any(voted.startswith("attention.") for voted, _ in self.votes.get(layer.path, ())):
            self.votes[layer.path] = Counter({(role, reason): 1})

    # --- neighbours ----------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> list[int]:
        """What each origin depends on, as bits: the origins that read no other."""
        inputs: list[int] = []
        for number, origin in enumerate(self.flow.origins):
            sources = {source for reads in origin.reads for source, _ in reads}
            inputs.append(reduce(or_, (inputs[source] for source in sources), 0) or 1 << number)
        return inputs

    def is_vector(self, number: int) -> bool:
        """Return whether an origin is one vector per sample, without positions."""
        shape = self.flow.tape.shapes[self.flow.origins[number].out]
        return sum(size > 1 for size in shape[1:]) <= 1

    def is_image(self, number: int) -> bool:
        """Return whether an origin is the output of a convolution over an area or a volume."""
        layer = self.records[number]
        return layer is not None and layer.kind in ("conv2d", "conv3d")

    def find_serving(self, ends: Collection[int], may_serve: Callable[[int], bool]) -> set[int]:
        """Return the given origins and those that they alone read, maybe by way of others such."""
        serving = {*ends}
        for number in reversed(range(len(self.records))):
            readers = {reader for reader, _ in self.readers[number]}
            if readers and readers <= serving and may_serve(number):
                serving.add(number)
        return serving

    def list_serving(self, ends: Collection[int], may_serve: Callable[[int], bool]) -> set[int]:
        """Return the dense layers among the origins that serve the given ones alone."""
        serving = self.find_serving(ends, may_serve)
        dense = {number: x.path for number, x in enumerate(self.records) if x is not None and is_dense(x)}
        apart = {path for number, path in dense.items() if number not in serving}
        return {number for number, path in dense.items() if number in serving.difference(ends) and path not in apart}

    def feeders(self, reads: Sources, block: str | None = None) -> list[Layer]:
        """Return the layers that feed an operand, without those that only gate it.

        A layer that feeds an attention in a block stands in a block too: positions embedded before the blocks are no
        keys. A depthwise convolution, which keeps channels apart, is followed to the layers it reads.
        """
        whole = [source for (source, _), effects in reads.items() if not is_gate(effects)]
        numbers = dict.fromkeys(whole or [source for source, _ in reads])
        layers = [layer for number in numbers for layer in self.through_depthwise(number)]
        fit = [layer for layer in layers if layer.kind not in ("embedding", "norm")]
        return [layer for layer in fit if layer.depth or block is None]

    def through_depthwise(self, number: int) -> list[Layer]:
        """Return the layer an origin is; for a depthwise convolution the layers it reads too.

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


def is_stack(layer: Layer) -> bool:
    """Return whether a layer is a stack of matrices, not one: fused experts."""
    return layer.kind == "expert_parameter" and len(layer.shape) == 3  # noqa: PLR2004


def is_depthwise(layer: Layer) -> bool:
    """Return whether a layer is a convolution of each channel by itself."""
    return layer.kind in CONV_KINDS and layer.groups > 1 and layer.groups == layer.in_features


def is_dense(layer: Layer) -> bool:
    """Return whether a layer mixes all features of one position: dense layers and pointwise convolutions."""
    pointwise = layer.kind in CONV_KINDS and layer.groups == 1 and all(size == 1 for size in layer.shape[2:])
    return layer.kind in DENSE_KINDS or pointwise


def is_gate(effects: int) -> bool:
    """Return whether a source came as an activated factor: a scale, not an operand."""
    return bool(effects & Effect.MULTIPLIED and effects & (Effect.ACTIVATED | Effect.SOFTMAXED))


def common_path(paths: Sequence[str]) -> str:
    """Return the longest path that all paths equal or stand below."""
    segments = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len({*level}) == 1, segments))
