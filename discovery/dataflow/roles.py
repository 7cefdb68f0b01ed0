"""Roles by dataflow: from the destination of each layer's output and the origin of its input. No name is read.

:func:`trace` runs a model's forwards and combines their verdicts; :func:`vote_on_roles` gives those of one forward.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from hashlib import sha256
from itertools import count
from operator import or_
from typing import Any

import torch
from torch import nn

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...domain.vocabulary import CONV_KINDS
from ..facts.layers import Site, walk
from ..facts.misfits import PACKED
from ..facts.source_inspection import SourceRead, inspect_source
from ..facts.towers import is_below
from ..meta_run.running import Run, run_model
from .attention import vote_on_attention, vote_on_kernel_attention, vote_on_weighted_values
from .bare_weights import list_bare_weights, list_uncalled
from .ends import Crossing, Ends, find_crossings, find_ends, find_separate, join_ends
from .feed_forward import vote_on_feed_forward
from .flow import Effect, Flow, Sources
from .follow import follow
from .gradients import find_cut_off
from .graph import Graph, Verdict, is_dense
from .layouts import find_layouts
from .mixers import vote_on_mixers
from .operations import Tape
from .recorder import Recorder

EVAL_ONLY = "it runs in eval mode alone, never in training"
PROJECTIONS = ("attention.", "mixer.input", "mixer.output", "mlp.", "expert.")
"""Roles of the matrices that are layers, although no module stands for them."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The results of running a model.

    Attributes:
        runs: Every attempt, with its inputs and why it did not finish.
        votes: For each layer: its roles and the reasons, with the number of forwards that voted for them.
        called: Paths of modules whose forward ran.
        bypassed: For each layer whose weight is read outside its own forward: where.
        layouts: For each fused projection: how its output is split.
        shared: For each layer in a block whose weight serves several times in one forward: how often.
        read_elsewhere: For each layer whose weight some path of the code reads without calling it: where and how.
        attentions: For each ``nn.MultiheadAttention`` that ran: whether it read its packed projection and was called
            as PyTorch's is.
        separate: Pairs of towers that ran in one forward, of which the first reads nothing of the second.
        ends: Where the features that the whole model returns come from; ``None`` if only parts of it ran.
        cut_off: For each layer that no gradient can reach in any forward: why.
        bare: Layers found by the way of the data alone: bare matrices with a role.
        uncalled: Paths of the matrices in containers of parameters, which are never called.
        operations: Digest of the operations of every forward, and of the values they read and made.
        active_experts: The number of experts that every router chooses for a token; ``None`` if they differ.
    """

    runs: tuple[Run, ...]
    votes: dict[str, Counter[Verdict]]
    called: frozenset[str]
    bypassed: dict[str, str]
    layouts: dict[str, str]
    shared: dict[str, int]
    read_elsewhere: dict[str, SourceRead]
    attentions: dict[str, bool]
    ends: Ends | None
    cut_off: dict[str, str]
    separate: frozenset[Crossing] = frozenset()
    bare: tuple[Layer, ...] = ()
    uncalled: tuple[str, ...] = ()
    operations: str = ""
    active_experts: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a forward of the whole model finished."""
        return any(run.error is None and not run.path for run in self.runs)

    def verdict(self, path: str) -> Verdict | None:
        """Return the verdict of most forwards on a layer, or ``None`` if there is none."""
        votes = self.votes.get(path)
        return max(votes, key=lambda verdict: votes[verdict]) if votes else None


def trace(
    model: nn.Module, layers: tuple[Layer, ...], module_paths: tuple[str, ...], example_inputs: Any = None
) -> Trace | None:
    """Run ``model`` and follow its tensors; ``None`` if no forward of it or of a model inside it finishes."""
    tapes: list[Tape] = []
    trained: list[Tape] = []

    def watch(forward: Callable[[], Any], record: list[Tape]) -> None:
        with Recorder(model) as recorder, torch.enable_grad():
            recorder.finish(forward())
        record.append(recorder.tape)  # only of a forward that did not raise

    runs = run_model(model, partial(watch, record=tapes), example_inputs, watch_training=partial(watch, record=trained))
    if not tapes:
        return None
    by_path = {layer.path: layer for layer in layers}
    flows = [follow(tape) for tape in tapes]
    sites = {site.path: site for site in walk(model)}
    bare = _find_bare(flows, sites, by_path, module_paths)
    graphs = [Graph(flow, by_path | bare, module_paths) for flow in flows]
    votes, layouts = _vote(graphs)
    ends = [find_ends(graph) for graph, tape in zip(graphs, tapes, strict=True) if tape.returned]
    chosen = frozenset[int]().union(*(graph.chosen_experts for graph in graphs))
    direct_reads = (read for tape in tapes for read in tape.direct_reads.items())
    return Trace(
        runs=runs,
        votes=votes,
        called=frozenset[str]().union(*(tape.called for tape in tapes)),
        bypassed={path: where for (path, parameter), where in direct_reads if parameter in ("weight", PACKED)},
        layouts=layouts,
        shared=count_shared(tapes, by_path),
        read_elsewhere=inspect_source(model),
        attentions=find_attentions(tapes, layers),
        separate=find_separate([find_crossings(graph) for graph in graphs]),
        ends=join_ends(ends) if ends else None,
        cut_off={**find_eval_only(runs, tapes, trained), **_by_layer(find_cut_off([*tapes, *trained]), by_path | bare)},
        bare=tuple(bare.values()),
        uncalled=list_uncalled(flows, sites),
        operations=digest_operations([*tapes, *trained]),
        active_experts=next(iter(chosen)) if len(chosen) == 1 else None,
    )


def digest_operations(tapes: Iterable[Tape]) -> str:
    """Return a digest of the operations on tapes: which function, called in which module, on which values.

    Only those count that a gradient of a weight passes. Others compute positions and masks, which most releases do
    otherwise. Values are numbered as these operations meet them.
    """
    digest = sha256()
    for tape in tapes:
        learned = {*tape.parameters}
        numbers: dict[int, int] = defaultdict(count().__next__)
        for op in tape.ops:
            if not op.is_cut and not learned.isdisjoint(op.inputs):
                learned.update(op.outputs)
                read = [(numbers[value], tape.shapes[value], tape.parameters.get(value)) for value in op.inputs]
                made = [(numbers[value], tape.shapes[value]) for value in op.outputs]
                digest.update(f"{op.name} {op.site} {read} {made}\n".encode())
    return digest.hexdigest()


def find_attentions(tapes: list[Tape], layers: tuple[Layer, ...]) -> dict[str, bool]:
    """Return for each ``nn.MultiheadAttention`` that ran whether LoRA as PEFT builds it has an effect there."""
    paths = [layer.path for layer in layers if layer.kind == "multihead_attention"]
    ran = [(path, tape) for path in paths for tape in tapes if tape.called[path]]
    read = {id(tape): frozenset(tape.parameters.values()) for _, tape in ran}
    fits: dict[str, bool] = {}
    for path, tape in ran:
        fits[path] = fits.get(path, False) or (path in tape.pairs and (path, PACKED) in read[id(tape)])
    return fits


def find_eval_only(runs: Iterable[Run], tapes: Iterable[Tape], trained: Iterable[Tape]) -> dict[str, str]:
    """Return the modules that the whole model calls in eval mode and not in train mode, if a forward ran in both."""
    finished = (run for run in runs if run.error is None)
    whole = [tape.called for run, tape in zip(finished, tapes, strict=True) if not run.path]
    in_training = [tape.called.keys() for tape in trained]
    if not in_training:
        return {}
    return dict.fromkeys(set[str]().union(*whole).difference(*in_training), EVAL_ONLY)


def _by_layer(owners: Mapping[tuple[str, str], str], layers: Mapping[str, Layer]) -> dict[str, str]:
    """Return reasons by the layer that each parameter is the weight of."""
    found: dict[str, str] = {}
    for (path, name), says in owners.items():
        if f"{path}.{name}" in layers:
            found[f"{path}.{name}"] = says
        elif name.endswith("weight"):
            found[path] = says
    return found


def _vote(graphs: list[Graph]) -> tuple[dict[str, Counter[Verdict]], dict[str, str]]:
    """Return the votes and the layouts of all forwards."""
    votes: dict[str, Counter[Verdict]] = defaultdict(Counter)
    layouts: dict[str, str] = {}
    for graph in graphs:
        for path, verdicts in vote_on_roles(graph).items():
            votes[path].update(verdicts)
        layouts |= find_layouts(graph)
    return dict(votes), layouts


def _find_bare(
    flows: list[Flow], sites: Mapping[str, Site], layers: dict[str, Layer], module_paths: tuple[str, ...]
) -> dict[str, Layer]:
    """Return the bare matrices that are part of an attention, a mixer or a feed-forward network by most votes.

    Others would only stand between the layers.
    """
    bare = {layer.path: layer for layer in list_bare_weights(flows, sites, layers)}
    votes, _ = _vote([Graph(flow, layers | bare, module_paths) for flow in flows] if bare else [])
    roles = {path: counted.most_common(1)[0][0][0] for path, counted in votes.items()}
    return {path: layer for path, layer in bare.items() if roles.get(path, "").startswith(PROJECTIONS)}


def count_shared(tapes: list[Tape], layers: dict[str, Layer]) -> dict[str, int]:
    """Return how often a weight in a block serves: a module run several times, or one weight in several modules."""
    tied = Counter(layer.tied_to or path for path, layer in layers.items())
    shared: dict[str, int] = {}
    for path, layer in layers.items():
        runs = max(tape.called[path] for tape in tapes) * (not layer.tied_to)
        times = max(runs, tied[layer.tied_to or path])
        if times > 1 and layer.depth and layer.kind not in ("embedding", "norm"):
            shared[path] = times
    return shared


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
    vote_on_conditioning(graph)
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
    routers = [number for number in range(len(graph.records)) if graph.is_router(number)]
    for number in graph.list_serving(routers, may_serve=lambda number: graph.block(number) is not None):
        graph.vote(graph.records[number], "moe.router", "is read by the router alone")


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


def vote_on_conditioning(graph: Graph) -> None:
    """Decide on the layers that modulate features by a condition, and on those that embed it for them alone.

    A layer that another modulating layer reads embeds the condition, even if it modulates too.
    """
    modulating = find_modulating(graph)
    read = {s for number in modulating for reads in graph.flow.origins[number].reads for s, _ in reads}
    for number in modulating.keys() - read:
        graph.decide(number, "modulation", modulating[number])
    for number in read & modulating.keys() | graph.list_serving(modulating, may_serve=graph.is_vector):
        graph.decide(number, "embedding.condition", "embeds a condition, which modulating layers read")


def find_modulating(graph: Graph) -> dict[int, str]:
    """Return the layers whose one vector per sample scales, gates or shifts features of other inputs (FiLM, AdaLN).

    A gate on the features it was computed from, as in squeeze-and-excite, depends on the same inputs as these. What
    is only added may be a token or a position, but in a block, or to the channels of an image. A layer that modulates
    in one block does in each: features that were modulated before depend on the condition too.
    """
    patterns: dict[str, str] = {}
    merged = [reads for o in graph.flow.origins if o.kind in ("layer", "stream") for reads in o.reads]
    for reads in merged:
        for number, layer in list_conditions(graph, reads):
            if number in graph.flow.spread:
                patterns[pattern_of(layer.path)] = "scales"
            elif layer.depth or any(graph.is_image(source) for source, _ in reads):
                patterns.setdefault(pattern_of(layer.path), "shifts")
    numbered = ((n, patterns.get(pattern_of(layer.path))) for n, layer in enumerate(graph.records) if layer)
    return {n: f"its one vector per sample {how} features of other inputs" for n, how in numbered if how}


def list_conditions(graph: Graph, reads: Sources) -> Iterator[tuple[int, Layer]]:
    """Yield (origin, layer) for the layers that write one vector per sample beside features of other inputs."""
    sources = {source for source, _ in reads}
    features = {source for source in sources if not graph.is_vector(source)}
    for source in sources - features if features else ():
        layer = graph.records[source]
        others = reduce(or_, (graph.inputs[other] for other in sources - {source}))
        is_condition = others != graph.inputs[source] and graph.flow.origins[source].out in graph.flow.data
        if layer is not None and is_dense(layer) and is_condition:
            yield source, layer
