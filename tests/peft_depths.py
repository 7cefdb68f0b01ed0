"""Adapters at other depths: does every layer that a mapping matches learn, and does it match every layer that does?

    python tests/peft_depths.py FILE [LIBRARY ...] [--workers N]

tries the LoRA mappings ``default`` and ``all-linear`` of every architecture with a live one, at 2, 3 and 5 blocks or as
many as it has, with the installed peft, or with loradar's adapters where peft refuses. One line of JSON for each goes
to FILE; an interrupted run goes on where it stopped. First comes one of each kind, and among those the riskiest.
"""

import argparse
import json
import os
import random
import sys
import warnings
from collections import Counter, defaultdict
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import NamedTuple

import peft
import torch
from packaged import packaged_catalogs

from loradar import adapters
from loradar.discovery import list_layers
from loradar.discovery.liveness.experiment import quiet
from loradar.discovery.meta_run.running import compute_model
from loradar.discovery.meta_run.tensor_values import list_outputs
from loradar.discovery.small_builds import SmallBuild
from loradar.discovery.small_builds.builds import LIMITS, MOST_PARAMETERS, find_input_size
from loradar.discovery.small_builds.shrink import Shrink
from loradar.discovery.sources import build, find_recipe
from loradar.domain.patterns import pattern_of
from loradar.domain.presets import is_adaptable
from loradar.domain.targets import TargetSpec, find_hits, resolve_blocks
from loradar.errors import LoradarError, ScanFailed
from loradar.references import Reference
from loradar.sandbox import Bounds, Sandbox

DEPTHS = (2, 3, 5)
PRESETS = ("default", "all-linear")
SECONDS = 120.0
"""Time for one forward search of a build; a machine with other work beside it is slow."""
MOST_BUILDS = 3
"""Builds of one depth that are tried until one runs."""
MULTIPLES = (2, 5)
"""Multiples of a depth that are tried where none runs whole: every n-th block may have a layer of a list beside it."""
REFUSALS = (ValueError, NotImplementedError, TypeError, RuntimeError, AttributeError, KeyError)
"""What peft raises where it cannot put an adapter: an unsupported class, padding of its own, a guard."""


class Watcher:
    """Runs forward and backward of a model with adapters, and notes which of them learnt something."""

    def __init__(self, model):
        """Find the factors that start at zero: only they have a gradient at first.

        Not the gain that peft's factors of timm's scaled convolutions have: it multiplies them.
        """
        self.factors = {
            name: p
            for name, p in model.named_parameters()
            if ("lora_B" in name and name.endswith("weight")) or "lora_embedding_B" in name
        }
        self.live, self.called = set(), set()
        self._model = model

    def __call__(self, forward):
        """Forward, and backward from every floating output."""
        paths = list_paths(self.factors)
        note = {path: partial(self._note, path) for path in paths}
        hooks = [self._model.get_submodule(path).register_forward_pre_hook(note[path]) for path in paths]
        try:
            with torch.enable_grad():
                outputs = [output for output in list_outputs(forward()) if output.requires_grad]
                if outputs:
                    sum((output.float() * torch.randn_like(output.float())).sum() for output in outputs).backward()
        finally:
            for hook in hooks:
                hook.remove()
        self.live |= {name for name, p in self.factors.items() if p.grad is not None and p.grad.abs().max() > 0}

    def _note(self, path, *_):
        self.called.add(path)

    def dead(self, adapter, *, by_place):
        """The patterns of an adapter's factors none of which learnt; single factors where a layer's place decides."""
        learnt = defaultdict(bool)
        for name in self.factors:
            if name.rpartition(".lora_")[2].split(".")[1] == adapter:
                learnt[name if by_place else pattern_of(name)] |= name in self.live
        assert learnt
        return sorted(name for name, is_live in learnt.items() if not is_live)


def live_proposals(entry):
    """Return the LoRA proposals an entry calls live."""
    checked = zip(entry.proposals, entry.checks, strict=True)
    return [p for p, check in checked if p.peft_type == "LORA" and check.status == "live"]


def deep_specs(entry):
    """Return the specs of an entry that are tried at other depths, by preset."""
    return {p.preset: replace(p.spec, target_parameters=None) for p in live_proposals(entry) if p.preset in PRESETS}


def config_of(spec, layers):
    """Return peft's configuration of a spec; blocks left alone are those of a model with these layers."""
    spec = resolve_blocks(spec, [layer.path for layer in layers])
    return peft.LoraConfig(
        target_modules=list(spec.target_modules)
        if isinstance(spec.target_modules, tuple)
        else spec.target_modules or [],
        exclude_modules=list(spec.exclude_modules) if isinstance(spec.exclude_modules, tuple) else spec.exclude_modules,
        target_parameters=list(spec.target_parameters) if spec.target_parameters else None,
    )


def injected(build, spec):
    """Return the build with peft's adapters."""
    return peft.inject_adapter_in_model(config_of(spec, list_layers(build.model)), build.model)


def ours(build, spec):
    """Return the build with our own adapters."""
    spec = resolve_blocks(spec, [layer.path for layer in list_layers(build.model)])
    named = {name: spec.stored.get(name) for name in ("target_modules", "exclude_modules")}
    adapters.inject(build.model, adapters.LoraConfig(**named))
    return build.model


def of_depth(reference, depth):
    """Yield builds with this many blocks at most, or one of each kind, the smallest first; none if the depth is fixed.

    ``None`` stands for the depth of the architecture itself.
    """
    recipe = find_recipe(reference)
    for most, is_terse in LIMITS:
        shrink = Shrink(most, depth, is_terse)
        flat = Shrink(most, None, is_terse)
        if depth is None or shrink.list_changes(recipe.settings) != flat.list_changes(recipe.settings):
            with suppress(ScanFailed):
                if sum(prod(x.shape) for x in list_layers(recipe.build_on_meta(shrink))) <= MOST_PARAMETERS:
                    yield SmallBuild(model := recipe.build_filled(shrink), "", find_input_size(model))


def list_paths(names):
    """Return the paths of the layers that factors belong to."""
    return {name.split(".lora_")[0].replace(".base_layer", "") for name in names}


class Learnt(NamedTuple):
    """The layers whose adapters were tried, those of them that learn, and whether the whole model's forward ran."""

    tried: set[str]
    live: set[str]
    is_whole: bool


def learn(build, inject):
    """Return what the layers with adapters learnt; ``None`` if no forward runs.

    A forward of the whole model tries every layer, one of a part those that it calls. An expert that does not learn had
    no token, which says nothing: whether any expert learns is tried elsewhere.
    """
    model = inject(build)
    if build.input_size:
        model.__dict__["pretrained_cfg"] = {"input_size": build.input_size}
    torch.manual_seed(0)
    watcher = Watcher(model)
    quiet(model)
    runs = compute_model(model, watcher, SECONDS)
    is_whole = any(run.error is None and not run.path for run in runs)
    paths, live = list_paths(watcher.factors), list_paths(watcher.live)
    reached = paths if is_whole else watcher.called
    tried = {path for path in reached if path in live or ".expert" not in path}
    return Learnt(tried, live, is_whole) if live else None


class Outcome(NamedTuple):
    """What a build showed.

    Attributes:
        adapters: ``peft``, or ``loradar`` where peft refuses.
        layers: The number of layers whose adapters were tried.
        wrong: The dead layers of each spec, and those that learn and that it does not match, although it matches others
            like them.
        is_whole: Whether the forward of the whole model ran, not those of parts.
    """

    adapters: str
    layers: int
    wrong: dict[str, list[str]]
    is_whole: bool


def try_build(make, specs, unfit):
    """Try specs on the build that ``make`` returns, anew if peft refuses it; ``None`` if no forward runs.

    Of the layers that learn, ``unfit`` ones may be left alone: groups that a small build has fewer of, such as these.
    """
    small = make()
    layers = list_layers(small.model)
    hits = {preset: {layer.path for layer in find_hits(spec, layers)} for preset, spec in specs.items()}
    like = {preset: {pattern_of(path) for path in paths} for preset, paths in hits.items()}
    every = {x.path for x in layers if is_adaptable(x) and any(pattern_of(x.path) in each for each in like.values())}
    spec = TargetSpec(target_modules=tuple(sorted(every.union(*hits.values()))))
    arm = "peft"
    try:
        seen = learn(small, lambda build: injected(build, spec))
    except REFUSALS:
        seen = None
    if seen is None:  # a forward may fail under peft's layers alone
        arm = "loradar"
        seen = learn(make(), lambda build: ours(build, spec))
    if seen is None:
        return None
    tried, live, is_whole = seen
    wrong = {
        preset: sorted((found & tried) - live)
        + sorted(x for x in live - found - unfit if pattern_of(x) in like[preset])
        for preset, found in hits.items()
    }
    return Outcome(arm, len(tried), {preset: paths for preset, paths in wrong.items() if paths}, is_whole)


def try_depth(reference, depth, specs, *, is_whole=True, with_both=False):
    """Return the outcome of the first build of a depth that runs, or the reason why there is none.

    An architecture whose depth is fixed is tried once, at its own depth. Where the forward of the whole model is known
    to run, the first build that runs whole counts before one that runs in parts. With both, loradar's adapters of the
    last spec are tried beside peft's.
    """
    warnings.simplefilter("ignore")
    reference = Reference.parse(reference)
    is_fixed = next(of_depth(reference, depth), None) is None
    if is_fixed and depth != DEPTHS[0]:
        return {"untried": "its depth is fixed"}
    unfit = {x.path for x in list_layers(build(reference)) if not is_adaptable(x)}
    best, reason = None, "it does not build"
    for deep in [None] if is_fixed else [depth, *(depth * n for n in MULTIPLES if is_whole)]:
        for number, _ in enumerate(islice(of_depth(reference, deep), MOST_BUILDS)):

            def make(deep=deep, number=number):
                return next(islice(of_depth(reference, deep), number, None))

            try:
                found = try_build(make, specs, unfit)
            except LoradarError as error:
                reason = error.message
                continue
            reason = "no forward runs"
            if found is None or (best and not found.is_whole):
                continue
            best = {"own": is_fixed, "blocks": deep, **found._asdict()}
            if found.is_whole or not is_whole:
                return best | {"wrong": best["wrong"] | (try_ours(make, specs) if with_both else {})}
    return best or {"untried": reason}


def try_ours(make, specs):
    """Return the dead layers of loradar's adapters of the last spec, if there are any."""
    seen = learn(make(), lambda build: ours(build, [*specs.values()][-1]))
    return {"loradar's": sorted(seen.tried - seen.live)} if seen.tried - seen.live else {}


def list_tasks(libraries):
    """Return the entries with a live mapping in the order of trying: one of each kind first, the riskiest before all.

    A kind is a class of models, then one set of slots and mappings. Risky are mappings that leave blocks alone, then
    those with exclusions, then regular expressions; otherwise the order is random.
    """
    entries = [e for c in packaged_catalogs() if c.header.library in libraries for e in c.entries if deep_specs(e)]
    random.Random(0).shuffle(entries)  # noqa: S311 - the order of a sample
    entries.sort(key=lambda entry: min(map(rank_risk, deep_specs(entry).values())))
    classes, kinds = Counter(), Counter()
    ranked = []
    for entry in entries:
        slots = tuple(sorted((slot.pattern, slot.kind) for slot in entry.slots))
        kind = slots, repr(sorted(deep_specs(entry).items()))
        ranked.append(((kinds[kind], classes[entry.architecture.library, entry.architecture.class_name]), entry))
        kinds[kind] += 1
        classes[entry.architecture.library, entry.architecture.class_name] += 1
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]


def runs_whole(entry):
    """Return whether the proof of an entry is of a forward of the whole model."""
    return "part by part" not in (entry.proof or "")


def rank_risk(spec):
    """Return how early a spec is tried."""
    risks = (spec.exclude_blocks, spec.exclude_modules, isinstance(spec.target_modules, str))
    return next((rank for rank, risk in enumerate(risks) if risk), len(risks))


def summarise(file):
    """Return the number of tries by library, depth and outcome, and what was wrong."""
    counts, wrong = Counter(), []
    for line in file.read_text().splitlines():
        found = json.loads(line)
        library = found["reference"].partition(":")[0]
        kind = found.get("untried") or ("wrong" if found["wrong"] else f"all learn, {found['adapters']}")
        counts[library, found["depth"], kind[:60]] += 1
        wrong += [line] if found.get("wrong") else []
    return "\n".join([*wrong, *(f"{number:5}  {' '.join(map(str, key))}" for key, number in sorted(counts.items()))])


def main():
    """Try what the file does not have yet, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("libraries", nargs="*", default=["transformers", "timm", "diffusers"])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    lines = options.file.read_text().splitlines() if options.file.exists() else []
    known = {(found["reference"], found["depth"]) for found in map(json.loads, lines)}
    entries = list_tasks(options.libraries)
    bounds = Bounds(workers=options.workers, seconds=4 * SECONDS, memory=5)
    with options.file.open("a") as out, Sandbox(bounds, waiting=len(DEPTHS) * len(entries), nice=0) as sandbox:
        tasks = [(e, depth) for e in entries for depth in DEPTHS if (e.architecture.reference, depth) not in known]
        futures = {
            sandbox.submit(task, e.architecture.reference, depth, deep_specs(e)): (e.architecture.reference, depth)
            for e, depth in tasks
            for task in [partial(try_depth, is_whole=runs_whole(e))]
        }
        for future in as_completed(futures):
            reference, depth = futures.pop(future)
            error = future.exception()
            found = {"untried": str(error)} if error else future.result()
            out.write(json.dumps({"reference": reference, "depth": depth, **found}) + "\n")
            out.flush()
    sys.stdout.write(summarise(options.file) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
