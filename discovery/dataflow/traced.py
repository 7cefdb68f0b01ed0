"""A traced model: what its forwards say of every layer, put together from as many runs as it took."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...domain.layers import Layer
from ..facts.source_inspection import SourceRead, inspect_source
from ..meta_run.running import Run, run_model
from .follow import follow
from .graph import Graph, Saying
from .layouts import tell_layouts
from .recorder import Recorder
from .tape import Tape
from .verdicts import tell_roles


@dataclass(frozen=True, slots=True)
class Trace:
    """What running a model told.

    Attributes:
        runs: Every attempt, with what it was given and why it did not finish.
        votes: For each layer: what it does and why, with how often a forward said so.
        called: Paths of modules whose forward ran.
        bypassed: For each layer whose weight is read outside its own forward: where.
        layouts: For each fused projection: how its output is split.
        shared: For each layer in a block whose weight serves several times in one forward: how often.
        read_elsewhere: For each layer whose weight some path of the code reads without calling it: where and how.
    """

    runs: tuple[Run, ...]
    votes: dict[str, Counter[Saying]]
    called: frozenset[str]
    bypassed: dict[str, str]
    layouts: dict[str, str]
    shared: dict[str, int]
    read_elsewhere: dict[str, SourceRead]

    def verdict(self, path: str) -> Saying | None:
        """Return what most forwards say of a layer, or ``None`` if none says anything."""
        votes = self.votes.get(path)
        return max(votes, key=lambda saying: votes[saying]) if votes else None


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
    return _put_together(runs, tapes, {layer.path: layer for layer in layers}, module_paths, inspect_source(model))


def _put_together(
    runs: tuple[Run, ...],
    tapes: list[Tape],
    layers: dict[str, Layer],
    module_paths: tuple[str, ...],
    read_elsewhere: dict[str, SourceRead],
) -> Trace:
    votes: dict[str, Counter[Saying]] = defaultdict(Counter)
    layouts: dict[str, str] = {}
    for tape in tapes:
        graph = Graph(follow(tape), layers, module_paths)
        for path, said in tell_roles(graph).items():
            votes[path].update(said)
        layouts |= tell_layouts(graph)
    readings = (reading for tape in tapes for reading in tape.readings.values())
    bypassed = {reading.path: reading.where for reading in readings if reading.parameter == "weight"}
    called = frozenset[str]().union(*(tape.called for tape in tapes))
    shared = _count_shared(tapes, layers)
    return Trace(runs, dict(votes), called, bypassed, layouts, shared, read_elsewhere)


def _count_shared(tapes: list[Tape], layers: dict[str, Layer]) -> dict[str, int]:
    """Return how often a weight in a block serves: a module run several times, or one weight in several modules."""
    tied = Counter(layer.tied_to or path for path, layer in layers.items())
    shared: dict[str, int] = {}
    for path, layer in layers.items():
        runs = max(tape.called[path] for tape in tapes) * (not layer.tied_to)
        times = max(runs, tied[layer.tied_to or path])
        if times > 1 and layer.depth and layer.kind not in ("embedding", "norm"):
            shared[path] = times
    return shared
