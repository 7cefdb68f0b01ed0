"""Proofs of liveness: on which layers an adapter learns, seen on a small real build or taken from the record."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from ...data import read_facts
from ...domain.architectures import Architecture
from ...domain.layers import Evidence, Layer
from ...domain.mappings import ArchitectureDetail
from ...domain.patterns import pattern_of
from ...domain.places import BlockRange, Places, find_places
from ...errors import LoradarError, ScanFailed
from ...references import Reference
from ..facts.layers import list_layers
from ..facts.model_facts import list_settings, settings_of
from ..meta_run.conditions import OutOfTime, random_states_kept
from ..meta_run.running import Run, compute_model
from ..small_builds import SmallBuild, free_memory
from ..sources import find_recipe
from .depths import relate
from .experiment import TOLERANCE, Experiment, quiet
from .probes import Probe, make_probes

MOST_BUILDS = 6
"""Builds tried, from the smallest."""
PATIENCE = 20.0
"""Seconds after which no other build is tried."""
SECONDS = 30.0
"""Time for the forwards and backwards of one build."""

Recall = Callable[[Architecture], ArchitectureDetail | None]
"""Finds the record of an architecture."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an adapter on a layer.

    Attributes:
        live: Whether it received a gradient; ``None`` if that could not be seen.
        says: Why ``live`` is not true; else what merging changed, if it changed anything.
        blocks: The blocks that it is true of, at any depth (``BlockRange``), if others have another one.
    """

    live: bool | None
    says: str | None = None
    blocks: str | None = None


UNSETTLED = Verdict(live=None, says="live or dead by its place in the stack, which the builds tried do not settle")


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of adapters on every layer.

    Attributes:
        says: How it was seen, or why nothing was.
        verdicts: By path of the layers that were tried.
        deeper: The verdicts on the same build with more blocks, if layers of one pattern got different ones.
        is_cut_short: Whether time ran out before every build and forward was tried.
    """

    says: str
    verdicts: Mapping[str, Verdict]
    deeper: tuple[Mapping[str, Verdict], ...] = ()
    is_cut_short: bool = False

    def count_open(self, patterns: Collection[str]) -> int:
        """Return the number of patterns without a verdict."""
        seen = {pattern_of(path) for path, verdict in self.verdicts.items() if verdict.live is not None}
        return sum(pattern not in seen for pattern in patterns)


Deepen = Callable[[], Iterable[SmallBuild]]
"""Makes a small build with more blocks."""


# --- made on a small build --------------------------------------------------------------------------------------------


def prove_any(builds: Iterable[SmallBuild], mergeable: Collection[str]) -> Proof:
    """Prove on the first build that gives a verdict on every pattern that may be proposed; else on the best.

    If there is no build at all, the proof has the reason and no verdict.
    """
    best: tuple[Proof, Deepen] | None = None
    is_late = False
    try:
        for proof, deepen, is_last in _prove_each(builds, mergeable):
            is_late |= is_last
            best = min(best or (proof, deepen), (proof, deepen), key=lambda tried: tried[0].count_open(mergeable))
    except (ScanFailed, MemoryError, RuntimeError) as error:  # torch raises the last where memory is short
        return best[0] if best else Proof(str(error).partition("\n")[0], {})
    if best is None:
        return Proof("nothing to build", {})
    proof, deepen = best
    deeper: list[Mapping[str, Verdict]] = []
    if _list_divided([proof.verdicts]):
        with suppress(MemoryError, RuntimeError):  # deeper builds need more memory
            deeper.extend(_prove_once(build, mergeable).verdicts for build in deepen())
    return replace(proof, deeper=tuple(deeper), is_cut_short=proof.is_cut_short or is_late)


def _prove_each(builds: Iterable[SmallBuild], mergeable: Collection[str]) -> Iterator[tuple[Proof, Deepen, bool]]:
    """Yield the proofs on builds until one leaves nothing open, or time is up, which the last value states."""
    hopeless: set[str] = set()  # scales at which nothing ran: larger builds will not run either
    started = time.monotonic()
    for build in islice(_list_promising(builds, hopeless), MOST_BUILDS):
        proof = _prove_once(build, mergeable)
        is_open = proof.count_open(mergeable) > 0
        is_late = is_open and time.monotonic() > started + PATIENCE
        yield proof, build.deepen, is_late
        if is_late or not is_open:
            return
        if all(verdict.live is None for verdict in proof.verdicts.values()):
            hopeless.add(build.scale)


def _list_promising(builds: Iterable[SmallBuild], hopeless: Collection[str]) -> Iterator[SmallBuild]:
    """Yield builds of scales that are not hopeless; of the first one that is, also the next depths.

    An odd number of blocks may be what does not run, where the second half of them reads what the first half wrote.
    """
    is_deepened = False
    for build in builds:
        if build.scale not in hopeless:
            yield build
            if hopeless and not is_deepened:
                is_deepened = True
                yield from build.deepen()


def _list_divided(builds: Iterable[Mapping[str, Verdict]]) -> set[str]:
    """Return the patterns with live and dead layers."""
    seen = {(_open_indices(path), verdict.live) for build in builds for path, verdict in build.items()}
    return {pattern for pattern, live in seen if live and (pattern, False) in seen}


def _prove_once(build: SmallBuild, mergeable: Collection[str]) -> Proof:
    """Prove on a build and free its weights, to which a caller's variable may still refer, and its outputs."""
    try:
        return prove(build.model, build.says, mergeable, build.input_size)
    finally:
        for tensor in (*build.model.parameters(), *build.model.buffers()):
            tensor.data = torch.empty(0)
        free_memory()


def prove(model: nn.Module, says: str, mergeable: Collection[str], image: tuple[int, int, int] | None = None) -> Proof:
    """Put an adapter on every layer of a small real build and see which receive a gradient.

    One forward and one backward in train mode, without dropout, over every floating output; eval mode where train mode
    does not run. Then the adapters are merged, which must not change the outputs by more than 1e-4 (fp32, relative).

    Args:
        model: On the CPU, with real weights; it is thrown away.
        says: The kind of build, in words.
        mergeable: Patterns of the layers an adapter may be proposed for, whose merging is checked.
        image: Channels, height and width of its input images, if it is a model of timm.
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
        if not _is_finished(runs) and not (runs and _is_out_of_time(runs[-1])):
            model.eval()
            again = compute_model(model, experiment, SECONDS)
            runs, says = (again, f"{says}, in eval mode") if _is_finished(again) else (runs, says)
    verdicts = {probe.path: find_verdict(probe, experiment) for probe in probes}
    return Proof(describe(says, runs, experiment), verdicts, is_cut_short=any(map(_is_out_of_time, runs)))


def find_verdict(probe: Probe, experiment: Experiment) -> Verdict:
    """Return the verdict on the layer of a probe."""
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
        is_coded = path in experiment.coded
        says = "its forward returns whole numbers alone" if is_coded else "what it writes reaches no output"
        return Verdict(live=False, says=f"it is called, but {says}")
    shift = experiment.shifts.get(path)
    return Verdict(live=True, says=f"merging changes the outputs by {shift:.0e}" if shift is not None else None)


def describe(says: str, runs: Sequence[Run], experiment: Experiment) -> str:
    """Return how a proof was seen, or why nothing was, in words."""
    if not _is_finished(runs):
        seen = "forward, backward, then " if experiment.gradients else ""
        return f"{says}: {seen}{runs[0].error if runs else 'nothing to run'}"
    parts = [run.path for run in runs if run.error is None and run.path]
    whole = "" if any(run.error is None and not run.path for run in runs) else f", part by part ({len(parts)})"
    ended = ", until its time was up" if any(map(_is_out_of_time, runs)) else ""
    merging = f"merged{', but for those it says,' if experiment.shifts else ''} within {TOLERANCE:.0e}"
    if experiment.is_random:
        merging = "not merged: its forward is random"
    return f"{says}{whole}: forward, backward, {merging}{ended}"


def _is_finished(runs: Iterable[Run]) -> bool:
    return any(run.error is None for run in runs)


def _is_out_of_time(run: Run) -> bool:
    return str(run.error).startswith(OutOfTime.__name__)


# --- taken from the record --------------------------------------------------------------------------------------------


def recall_proof(recall: Recall, model: nn.Module, architecture: Architecture, layers: Iterable[Layer]) -> Proof | None:
    """Return the verdicts on record for the layers of a model; ``None`` if they are about another kind of model.

    Where the place of a block decides (a last block that nothing reads), the slot has both verdicts: a layer gets the
    one of its place, if it is known at any depth.
    """
    record = recall(architecture)
    if record is None or record.proof is None or not any(slot.live is False for slot in record.slots):
        return None  # no verdict would change a proposal
    if not proof_holds(record.architecture, model, architecture):
        return None
    by_pattern: dict[str, set[Verdict]] = defaultdict(set)
    for slot in record.slots:
        by_pattern[slot.pattern].add(Verdict(slot.live, slot.proof, slot.blocks))
    paths = find_places([layer.path for layer in layers])
    verdicts = {path: _verdict_at(places, by_pattern[pattern_of(path)]) for path, places in paths.items()}
    return Proof(record.proof, {path: known for path, known in verdicts.items() if known and known.live is not None})


def _verdict_at(places: Places, known: Collection[Verdict]) -> Verdict | None:
    """Return the verdict of a slot on a layer at these places, if the record decides it."""
    if len({verdict.live for verdict in known}) == 1:
        return next(iter(known))
    if any(verdict.blocks is None for verdict in known):
        return None
    return next((verdict for verdict in known if places in BlockRange.parse(str(verdict.blocks))), None)


def proof_holds(made_for: Architecture, model: nn.Module, architecture: Architecture) -> bool:
    """Return whether a proof of an architecture holds for a model: they share version, class and settings.

    A model must be configured as its architecture is scanned: by default, as far as that builds. Models complete and
    change their settings: where these differ, another model is built to be compared with.
    """
    expected = (architecture.library_version, architecture.class_name)
    settings = settings_of(model) if (made_for.library_version, made_for.class_name) == expected else None
    if not settings:
        return False
    try:
        recipe = find_recipe(Reference.parse(architecture.reference))
        return _is_alike(settings, list_settings(recipe.settings)) or _is_alike(
            settings, settings_of(recipe.build_on_meta())
        )
    except LoradarError:
        return False


def _is_alike(own: Any, other: Any) -> bool:
    """Compare settings; numbers may differ, because a proof is made on a build with smaller ones itself."""
    if isinstance(own, Mapping) and isinstance(other, Mapping):
        compared = own.keys() & other.keys() - {*read_facts("liveness.toml")["unrelated"]}
        return all(_is_alike(own[name], other[name]) for name in compared)
    if isinstance(own, list | tuple) and isinstance(other, list | tuple):
        return [*own] == [*other]
    return (_is_size(own) and _is_size(other)) or bool(own == other)


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


# --- applied to the layers of the full model --------------------------------------------------------------------------


def apply_proof(layers: Iterable[Layer], proof: Proof) -> tuple[Layer, ...]:
    """Return the layers of the full model with the verdicts of a proof; liveness outranks every other evidence."""
    known = tuple(layers)
    by_place = _decide_by_place(known, proof)
    by_pattern: dict[str, list[Verdict]] = defaultdict(list)
    for path, verdict in proof.verdicts.items():
        by_pattern[_open_indices(path)].append(verdict)
    return tuple(
        _apply(layer, by_place.get(layer.path, proof.verdicts.get(layer.path)), by_pattern[_open_indices(layer.path)])
        for layer in known
    )


def _decide_by_place(layers: Collection[Layer], proof: Proof) -> dict[str, Verdict]:
    """Return verdicts on the layers of patterns with live and dead ones: by their places in the stacks around them."""
    builds = [proof.verdicts, *proof.deeper]
    divided = _list_divided(builds)
    places = find_places([layer.path for layer in layers]) if divided else {}
    found: dict[str, Verdict] = {}
    for pattern in divided:
        seen = [_verdicts_by_place(build, pattern) for build in builds]
        wanted = {path: place for path, place in places.items() if _open_indices(path) == pattern}
        found |= _relate_verdicts(seen, wanted)
    return found


def _verdicts_by_place(build: Mapping[str, Verdict], pattern: str) -> dict[Places, Verdict]:
    """Return the verdicts of a build on a pattern's layers, without open ones."""
    places = find_places(build)
    verdicts = {path: verdict for path, verdict in build.items() if verdict.live is not None}
    return {places[path]: verdict for path, verdict in verdicts.items() if _open_indices(path) == pattern}


def _relate_verdicts(seen: Sequence[Mapping[Places, Verdict]], wanted: Mapping[str, Places]) -> dict[str, Verdict]:
    """Return the verdicts on layers of a pattern by those at their places in several builds.

    A place that a build has gets the verdict of the last such build; any other the one that follows from its blocks.
    """
    relation = relate([{place: not verdict.live for place, verdict in build.items()} for build in seen])
    same = {place: not verdict.live for build in seen for place, verdict in build.items()}
    known = {not verdict.live: verdict for build in seen for verdict in build.values()}
    if relation.blocks is not None:
        blocks = {True: relation.blocks, False: relation.blocks.complement()}
        known = {is_dead: replace(verdict, blocks=str(blocks[is_dead])) for is_dead, verdict in known.items()}
    decided = {path: same.get(place, relation.is_dead(place)) for path, place in wanted.items()}
    return {path: UNSETTLED if is_dead is None else known[is_dead] for path, is_dead in decided.items()}


def _open_indices(path: str) -> str:
    """Return a path with its indices open, also those of ``expert_3``: a small build has fewer of them."""
    return re.sub(r"(?<=[._])\d+(?=\.|$)", "*", path)


def _apply(layer: Layer, own: Verdict | None, siblings: Sequence[Verdict]) -> Layer:
    """Return a layer with its own verdict, else that of its siblings; experts without a token share theirs."""
    live = next((sibling for sibling in siblings if sibling.live), None)
    is_seen = own is not None and (own is UNSETTLED or own.live is not None)
    is_seen = is_seen and not (live and layer.role.startswith("expert."))
    verdict = own if is_seen else live or own or next(iter(siblings), None)
    if verdict is None:
        return layer
    if layer.bypassed and verdict.live is not True:
        verdict = Verdict(live=False, says=f"its weight is read at {layer.bypassed}, without calling it")
    evidence = (*layer.evidence, Evidence("liveness", verdict.says)) if verdict.says else layer.evidence
    return replace(layer, live=verdict.live, proof=verdict.says, blocks=verdict.blocks, evidence=evidence)
