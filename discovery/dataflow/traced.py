"""Trace a model: run its forwards and combine their verdicts on every layer."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...domain.layers import Layer
from ..facts.source_inspection import SourceRead, inspect_source
from ..meta_run.running import Run, run_model
from .follow import follow
from .graph import Graph, Verdict
from .layouts import find_layouts
from .recorder import Recorder
from .roles import vote_on_roles
from .tape import Tape


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
    """

    runs: tuple[Run, ...]
    votes: dict[str, Counter[Verdict]]
    called: frozenset[str]
    bypassed: dict[str, str]
    layouts: dict[str, str]
    shared: dict[str, int]
    read_elsewhere: dict[str, SourceRead]

    def verdict(self, path: str) -> Verdict | None:
        """Return the verdict of most forwards on a layer, or ``None`` if there is none."""
        votes = self.votes.get(path)
        return max(votes, key=lambda verdict: votes[verdict]) if votes else None


def trace(
    model: nn.Module, layers: tuple[Layer, ...], module_paths: tuple[str, ...], example_inputs: Any = None
) -> Trace | None:
    """Run ``model`` and follow its tensors; ``None`` if no forward of it or of a model inside it finishes."""
    tapes: list[Tape] = []

    def watch(forward: Callable[[], Any]) -> None:
        with Recorder(model) as recorder:
            forward()
        tapes.append(recorder.tape)  # only of a forward that did not raise

    runs = run_model(model, watch, example_inputs)
    if not tapes:
        return None
    by_path = {layer.path: layer for layer in layers}
    votes: dict[str, Counter[Verdict]] = defaultdict(Counter)
    layouts: dict[str, str] = {}
    for tape in tapes:
        graph = Graph(follow(tape), by_path, module_paths)
        for path, verdicts in vote_on_roles(graph).items():
            votes[path].update(verdicts)
        layouts |= find_layouts(graph)
    direct_reads = (read for tape in tapes for read in tape.direct_reads.values())
    return Trace(
        runs=runs,
        votes=dict(votes),
        called=frozenset[str]().union(*(tape.called for tape in tapes)),
        bypassed={read.path: read.where for read in direct_reads if read.parameter == "weight"},
        layouts=layouts,
        shared=count_shared(tapes, by_path),
        read_elsewhere=inspect_source(model),
    )


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
