"""What the catalog calls live, tried with the installed peft instead of our own probes.

A sample of every library, by default; ``LORADAR_EVERY=1`` tries every architecture of the catalog, at other depths too.
"""

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import peft
import pytest
import torch
from packaged import packaged_catalogs
from peft.functional import set_adapter

from loradar import adapters
from loradar.discovery import list_layers, sources
from loradar.discovery.liveness.experiment import quiet
from loradar.discovery.meta_run.running import compute_model
from loradar.discovery.meta_run.tensor_values import list_outputs
from loradar.discovery.small_builds import SmallBuild, small_builds
from loradar.discovery.small_builds.builds import LIMITS, find_input_size
from loradar.discovery.small_builds.shrink import Shrink
from loradar.discovery.sources import find_recipe
from loradar.domain.patterns import pattern_of
from loradar.domain.presets import is_adaptable
from loradar.domain.targets import TargetSpec, find_hits, resolve_blocks
from loradar.errors import ScanFailed
from loradar.references import Reference

STEPS = {"transformers": 53, "timm": 137, "diffusers": 40}
"""Every how manieth architecture is tried, or the next one that is quick."""
MOST_LAYERS = 800
EVERY = int(os.environ.get("LORADAR_EVERY", "0"))
BUILDS = 3
REFUSALS = (ValueError, NotImplementedError, TypeError, RuntimeError, AttributeError, KeyError)
"""What peft raises where it cannot put an adapter: an unsupported class, padding of its own, a guard."""


def sample():
    """Yield the entries tried that have a proposal called live."""
    for catalog in packaged_catalogs():
        step = EVERY or STEPS[catalog.header.library]
        for start in range(1, len(catalog.entries), step):
            near = catalog.entries[start : start + step]
            entry = near[0] if EVERY else next(filter(is_quick, near), near[0])
            if live_proposals(entry):
                yield entry


def is_quick(entry):
    """Return whether an architecture has so few layers that all of its proposals are tried in seconds."""
    return sum(slot.count for slot in entry.slots) <= MOST_LAYERS


def live_proposals(entry):
    """Return the LoRA proposals an entry calls live."""
    checked = zip(entry.proposals, entry.checks, strict=True)
    return [p for p, check in checked if p.peft_type == "LORA" and check.status == "live"]


class Watcher:
    """Runs forward and backward of a model peft has adapted, and notes which adapters learnt something."""

    def __init__(self, model):
        """Find the factors that start at zero: only they have a gradient at first."""
        self.factors = {
            name: p for name, p in model.named_parameters() if "lora_B" in name or "lora_embedding_B" in name
        }
        self.live = set()

    def __call__(self, forward):
        """Forward, and backward from every floating output."""
        with torch.enable_grad():
            outputs = [output for output in list_outputs(forward()) if output.requires_grad]
            if outputs:
                sum((output.float() * torch.randn_like(output.float())).sum() for output in outputs).backward()
        self.live |= {name for name, p in self.factors.items() if p.grad is not None and p.grad.abs().max() > 0}

    def dead(self, adapter, *, by_place):
        """The patterns of an adapter's factors none of which learnt; single factors where a layer's place decides."""
        learnt = defaultdict(bool)
        for name in self.factors:
            if name.rpartition(".lora_")[2].split(".")[1] == adapter:
                learnt[name if by_place else pattern_of(name)] |= name in self.live
        assert learnt
        return sorted(name for name, is_live in learnt.items() if not is_live)


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


def tried(build, specs):
    """Return the dead factors of each spec that peft takes on one build, or their patterns.

    Every spec is an adapter of its own, and all are active in one run: as their factors start at zero, none changes the
    outputs or another's gradients.
    """
    model, layers, taken = build.model, list_layers(build.model), []
    for preset, spec in specs.items():
        with suppress(*REFUSALS):  # the injection alone: what fails afterwards fails the test
            peft.inject_adapter_in_model(config_of(spec, layers), model, preset)
            taken.append(preset)
    if not taken:
        return {}
    set_adapter(model, taken)
    torch.manual_seed(0)
    if build.input_size:
        model.__dict__["pretrained_cfg"] = {"input_size": build.input_size}
    watcher = Watcher(model)
    quiet(model)
    compute_model(model, watcher)
    return {preset: watcher.dead(preset, by_place=specs[preset].exclude_blocks is not None) for preset in taken}


def dead_under_peft(reference, specs):
    """Return the dead factors of each spec on the build that shows the fewest, and on the same build with more blocks.

    A spec that peft refuses on every build is left out.
    """
    least, deepen, left = {}, {}, dict(specs)
    for build in islice(small_builds(reference, list_layers(sources.build(reference))), BUILDS):
        for preset, dead in tried(build, left).items():
            if preset not in least or len(dead) < len(least[preset]):
                least[preset], deepen[preset] = dead, build.deepen
        left = {preset: spec for preset, spec in left.items() if least.get(preset) != []}
        if not left:
            break
    for deeper in {id(each): each for each in deepen.values()}.values():
        placed = {p: specs[p] for p in least if deepen[p] is deeper and specs[p].exclude_blocks is not None}
        for build in deeper() if placed else ():
            found = tried(build, placed)
            assert found.keys() == placed.keys()
            for preset, dead in found.items():
                least[preset] = least[preset] + dead
    return least


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", [*sample()], ids=lambda entry: entry.architecture.reference)
def test_peft_s_adapters_learn_where_the_catalog_says_live(entry):
    """0 dead layers in any proposal called live."""
    reference = Reference.parse(entry.architecture.reference)
    found = dead_under_peft(reference, {p.preset: p.spec for p in live_proposals(entry)})
    if not found:
        pytest.skip(f"peft refuses every proposal for {reference}")
    assert not {preset: dead for preset, dead in found.items() if dead}


# --- at other depths --------------------------------------------------------------------------------------------------

DEPTHS = (2, 3, 5)
PRESETS = ("default", "all-linear")
MODULES = ("target_modules", "exclude_modules")
RELATED = [
    "transformers:lilt",
    "transformers:maskformer",
    "transformers:jamba",
    "transformers:kimi_linear",
    "timm:vit_relpos_medium_patch16_cls_224",
    "timm:vit_tiny_patch16_224",
    "diffusers:SD3Transformer2DModel",
    "diffusers:MochiTransformer3DModel",
]
"""The last block of a stack, the first one, every n-th layer, layers of two kinds, and stacks of equal blocks."""


def tried_deep():
    """Yield the entries tried at other depths: a few, or those that ``LORADAR_EVERY`` keeps."""
    for catalog in packaged_catalogs():
        entries = catalog.entries[:: EVERY or 1]
        yield from (e for e in entries if (EVERY or e.architecture.reference in RELATED) and live_proposals(e))


def of_depth(reference, depth):
    """Yield builds with this many blocks, or one of each kind, the smallest first; none if the depth is fixed."""
    recipe = find_recipe(reference)
    for most, is_terse in LIMITS:
        shrink = Shrink(most, depth, is_terse)
        flat = Shrink(most, None, is_terse)
        if shrink.list_changes(recipe.settings) != flat.list_changes(recipe.settings):
            with suppress(ScanFailed):
                yield SmallBuild(model := recipe.build_filled(shrink), "", find_input_size(model))


def list_paths(names):
    """Return the paths of the layers that factors belong to."""
    return {name.split(".lora_")[0].replace(".base_layer", "") for name in names}


def learn(build, inject):
    """Return the layers whose adapters were tried and those of them that learn; ``None`` if no forward runs.

    A forward of the whole model tries every layer, one of a part those that it calls. An expert that does not learn had
    no token, which says nothing: whether any expert learns is tried above.
    """
    model = inject(build)
    if build.input_size:
        model.__dict__["pretrained_cfg"] = {"input_size": build.input_size}
    torch.manual_seed(0)
    watcher = Watcher(model)
    paths, called = list_paths(watcher.factors), set()
    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: called.add(path))
    quiet(model)
    runs = compute_model(model, watcher)
    is_whole = any(run.error is None and not run.path for run in runs)
    live = list_paths(watcher.live)
    tried = {path for path in paths if (is_whole or path in called) and (path in live or ".expert" not in path)}
    return (tried, live) if live else None


def ours(build, spec):
    """Return the build with our own adapters."""
    spec = resolve_blocks(spec, [layer.path for layer in list_layers(build.model)])
    adapters.inject(build.model, adapters.LoraConfig(**{name: spec.stored[name] for name in MODULES}))
    return build.model


def wrong_at(build, specs):
    """Return the dead and the lost layers of each spec in a build with peft's adapters; ``None`` if none runs or fits.

    A layer is lost if it learns and a spec that matches others like it does not match it.
    """
    layers = list_layers(build.model)
    hits = {preset: {layer.path for layer in find_hits(spec, layers)} for preset, spec in specs.items()}
    like = {preset: {pattern_of(path) for path in paths} for preset, paths in hits.items()}
    every = {x.path for x in layers if is_adaptable(x) and any(pattern_of(x.path) in each for each in like.values())}
    paths = tuple(sorted(every.union(*hits.values())))
    try:
        seen = learn(build, lambda build: injected(build, TargetSpec(target_modules=paths)))
    except REFUSALS:
        return None
    if seen is None:
        return None
    tried, live = seen
    return {
        preset: sorted((found & tried) - live) + sorted(x for x in live - found if pattern_of(x) in like[preset])
        for preset, found in hits.items()
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("entry", [*tried_deep()], ids=lambda entry: entry.architecture.reference)
def test_no_adapter_is_dead_and_no_live_layer_lost_at_another_depth(entry, depth):
    """With peft's adapters and with ours: whatever the number of blocks, a spec matches the layers that learn."""
    reference = Reference.parse(entry.architecture.reference)
    specs = {p.preset: replace(p.spec, target_parameters=None) for p in live_proposals(entry) if p.preset in PRESETS}
    tried = ((number, wrong_at(build, specs)) for number, build in enumerate(of_depth(reference, depth)))
    number, wrong = next(((number, wrong) for number, wrong in tried if wrong is not None), (None, None))
    if wrong is None:
        pytest.skip(f"no build of {reference} with {depth} blocks runs with peft's adapters")
    assert not {preset: paths for preset, paths in wrong.items() if paths}
    build = next(islice(of_depth(reference, depth), number, None))
    tried, live = learn(build, lambda build: ours(build, [*specs.values()][-1]))
    assert tried == live
