"""A traced model: what its forwards say of every layer, put together from as many runs as it took."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...records import Layer
from ..running import Run, run_model
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
    """

    runs: tuple[Run, ...]
    votes: dict[str, Counter[Saying]]
    called: frozenset[str]
    bypassed: dict[str, str]
    layouts: dict[str, str]

    def verdict(self, path: str) -> Saying | None:
        """Return what most forwards say of a layer, or ``None`` if none says anything."""
        votes = self.votes.get(path)
        return max(votes, key=lambda saying: votes[saying]) if votes else None


def trace(
    model: nn.Module, layers: tuple[Layer, ...], module_paths: tuple[str, ...], example_inputs: Any = None
) -> Trace | None:
    """Run ``model`` and follow its tensors; ``None`` if no forward of it or of a model inside it finishes."""
    tapes: list[Tape] = []

    @contextmanager
    def watch() -> Iterator[Recorder]:
        with Recorder(model) as recorder:
            yield recorder
        tapes.append(recorder.tape)  # only of a forward that did not raise

    runs = run_model(model, watch, example_inputs)
    return _put_together(runs, tapes, {layer.path: layer for layer in layers}, module_paths) if tapes else None


def _put_together(
    runs: tuple[Run, ...], tapes: list[Tape], layers: dict[str, Layer], module_paths: tuple[str, ...]
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
    return Trace(runs, dict(votes), called, bypassed, layouts)
