"""prove: a small real build -> on which of its layers an adapter learns, and how that is known."""

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import nn

from ...domain.layers import Evidence, Layer
from ...domain.patterns import pattern_of
from ...errors import ScanFailed
from ..facts.layers import list_layers
from ..meta_run.conditions import OutOfTime, random_states_kept
from ..meta_run.memory import give_back
from ..meta_run.running import Run, compute_model
from ..small_builds import SmallBuild
from .experiment import TOLERANCE, Experiment
from .probes import Probe, make_probes
from .quiet import quiet

MOST_BUILDS = 6
"""Builds tried, from the smallest."""
PATIENCE = 20.0
"""Seconds after which no other build is tried."""
SECONDS = 30.0
"""Time for the forwards and backwards of one build."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an adapter on a layer.

    Attributes:
        live: Whether it received a gradient; ``None`` if that could not be seen.
        says: Why ``live`` is not true; else what merging changed, if it changed anything.
    """

    live: bool | None
    says: str | None = None


LIVE = Verdict(live=True)


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of adapters on every layer.

    Attributes:
        says: How it was seen, or why nothing was.
        verdicts: By path of the layers that were tried.
    """

    says: str
    verdicts: Mapping[str, Verdict]


def prove(model: nn.Module, says: str, mergeable: Collection[str], image: tuple[int, int, int] | None = None) -> Proof:
    """Put an adapter on every layer of a small real build and see which receive a gradient.

    One forward and one backward in train mode, without dropout, over every floating output; eval mode where train mode
    does not run. Then the adapters are merged, which must not change the outputs by more than 1e-4 (fp32, relative).

    Args:
        model: On the CPU, with real weights; it is thrown away.
        says: What kind of build it is, in words.
        mergeable: Patterns of the layers an adapter may be proposed for, whose merging is checked.
        image: Channels, height and width of the images it is given, if it is a model of timm.
    """
    if image:
        model.__dict__["pretrained_cfg"] = {"input_size": image}
    layers = list_layers(model)
    tied = {layer.tied_to for layer in layers}
    paths = {
        layer.path
        for layer in layers
        if pattern_of(layer.path) in mergeable and not layer.tied_to and layer.path not in tied
    }
    with random_states_kept():
        torch.manual_seed(0)
        probes = make_probes(model, layers)
        quiet(model)
        experiment = Experiment(probes, paths)
        runs = compute_model(model, experiment, SECONDS)
        if not _finished(runs) and not _is_out_of_time(runs):
            model.eval()
            again = compute_model(model, experiment, SECONDS)
            runs, says = (again, f"{says}, in eval mode") if _finished(again) else (runs, says)
    return Proof(_tell(says, runs, experiment), _verdicts(probes, experiment))


def prove_any(builds: Iterable[SmallBuild], mergeable: Collection[str]) -> Proof:
    """Prove on the first build on which everything can be seen that something may be proposed for; else on the best.

    Where there is no build at all, the proof says why and holds no verdict.
    """
    best: Proof | None = None
    hopeless: set[str] = set()  # scales at which nothing ran: deeper builds will not run either
    started = time.monotonic()
    try:
        for build in islice((build for build in builds if build.scale not in hopeless), MOST_BUILDS):
            try:
                proof = prove(build.model, build.says, mergeable, build.input_size)
            finally:
                _drop(build)
            if all(verdict.live is None for verdict in proof.verdicts.values()):
                hopeless.add(build.scale)
            if best is None or _count_open(proof, mergeable) < _count_open(best, mergeable):
                best = proof
            if not _count_open(best, mergeable) or time.monotonic() > started + PATIENCE:
                break
    except (ScanFailed, MemoryError) as error:
        return best or Proof(str(error), {})
    except RuntimeError as error:  # torch's own, where memory is short
        return best or Proof(str(error).partition("\n")[0], {})
    return best or Proof("nothing to build", {})


def _drop(build: SmallBuild) -> None:
    """Free the weights of a build, to which a caller's variable may still refer, and what they were computed into."""
    for tensor in (*build.model.parameters(), *build.model.buffers()):
        tensor.data = torch.empty(0)
    give_back()


def _count_open(proof: Proof, mergeable: Collection[str]) -> int:
    """Return how many of the slots that matter nothing was seen of."""
    seen = {pattern_of(path) for path, verdict in proof.verdicts.items() if verdict.live is not None}
    return sum(pattern not in seen for pattern in mergeable)


def apply_proof(layers: Iterable[Layer], proof: Proof) -> tuple[Layer, ...]:
    """Return the layers of the full model with what the proof says of them; liveness outranks every other evidence."""
    by_pattern: dict[str, list[Verdict]] = defaultdict(list)
    for path, verdict in proof.verdicts.items():
        by_pattern[_alike(path)].append(verdict)
    return tuple(_proved(layer, proof, by_pattern.get(_alike(layer.path), [])) for layer in layers)


def _alike(path: str) -> str:
    """Return a path with its indices open, also those of ``expert_3``: a small build has fewer of them."""
    return re.sub(r"(?<=[._])\d+(?=\.|$)", "*", path)


def _proved(layer: Layer, proof: Proof, siblings: Sequence[Verdict]) -> Layer:
    verdict = _verdict_on(layer, proof.verdicts.get(layer.path), siblings)
    if verdict is None:
        return layer
    if layer.bypassed and verdict.live is not True:
        verdict = Verdict(live=False, says=f"its weight is read at {layer.bypassed}, without calling it")
    evidence = (*layer.evidence, Evidence("liveness", verdict.says)) if verdict.says else layer.evidence
    return replace(layer, live=verdict.live, proof=verdict.says, evidence=evidence)


def _verdict_on(layer: Layer, own: Verdict | None, siblings: Sequence[Verdict]) -> Verdict | None:
    """Return the verdict on a layer: its own, else that of its siblings; experts no token came to share theirs."""
    live = next((sibling for sibling in siblings if sibling.live), None)
    is_seen = own is not None and own.live is not None
    if is_seen and not (live and layer.role.startswith("expert.")):
        return own
    return live or own or next(iter(siblings), None)


def _verdicts(probes: Iterable[Probe], experiment: Experiment) -> dict[str, Verdict]:
    return {probe.path: _judge(probe, experiment) for probe in probes}


def _judge(probe: Probe, experiment: Experiment) -> Verdict:
    path = probe.path
    if path in experiment.unfitting:
        unfitting = experiment.unfitting[path]
        return Verdict(live=False if unfitting.is_never else None, says=unfitting.says)
    if path not in experiment.gradients:
        reason = experiment.error if probe.calls else None
        return Verdict(live=None, says=f"no backward: {reason}" if reason else "no forward called it")
    size = experiment.gradients[path]
    if size != size:  # noqa: PLR0124 - nan
        return Verdict(live=None, says="its gradient is no number")
    if size == 0:
        return Verdict(live=False, says="it is called, but what it writes reaches no output")
    shift = experiment.shifts.get(path)
    return LIVE if shift is None else Verdict(live=True, says=f"merging changes the outputs by {shift:.0e}")


def _finished(runs: Iterable[Run]) -> bool:
    return any(run.error is None for run in runs)


def _is_out_of_time(runs: Sequence[Run]) -> bool:
    return bool(runs) and str(runs[-1].error).startswith(OutOfTime.__name__)


def _tell(says: str, runs: Sequence[Run], experiment: Experiment) -> str:
    if not _finished(runs):
        seen = "forward, backward, then " if experiment.gradients else ""
        return f"{says}: {seen}{runs[0].error if runs else 'nothing to run'}"
    parts = [run.path for run in runs if run.error is None and run.path]
    whole = "" if any(run.error is None and not run.path for run in runs) else f", part by part ({len(parts)})"
    ended = ", until its time was up" if any(str(run.error).startswith(OutOfTime.__name__) for run in runs) else ""
    return f"{says}{whole}: forward, backward, {_tell_merging(experiment)}{ended}"


def _tell_merging(experiment: Experiment) -> str:
    if experiment.is_random:
        return "not merged: its forward is random"
    return f"merged{', but for those it says,' if experiment.shifts else ''} within {TOLERANCE:.0e}"
