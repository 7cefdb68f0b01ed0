"""What the catalog calls live, tried with the installed peft instead of our own probes.

A sample of every library, by default; ``LORADAR_EVERY=1`` tries every architecture of the catalog, at other depths too.
"""

import os
from contextlib import suppress
from itertools import islice

import peft
import pytest
import torch
from packaged import packaged_catalogs
from peft.functional import set_adapter
from peft_depths import DEPTHS, REFUSALS, Watcher, config_of, deep_specs, live_proposals, runs_whole, try_depth

from loradar.discovery import list_layers, sources
from loradar.discovery.liveness.experiment import quiet
from loradar.discovery.meta_run.running import compute_model
from loradar.discovery.small_builds import small_builds
from loradar.references import Reference

STEPS = {"transformers": 79, "timm": 205, "diffusers": 40}
"""Every how manieth architecture is tried, or the next one that is quick."""
MOST_LAYERS = 800
EVERY = int(os.environ.get("LORADAR_EVERY", "0"))
BUILDS = 3


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("depth", DEPTHS if EVERY else DEPTHS[1:])  # the least is that of most proofs
@pytest.mark.parametrize("entry", [*tried_deep()], ids=lambda entry: entry.architecture.reference)
def test_no_adapter_is_dead_and_no_live_layer_lost_at_another_depth(entry, depth):
    """With peft's adapters and with ours: whatever the number of blocks, a spec matches the layers that learn."""
    reference, is_whole = entry.architecture.reference, runs_whole(entry)
    found = try_depth(reference, depth, deep_specs(entry), is_whole=is_whole, with_both=True)
    if "untried" in found:
        pytest.skip(f"{entry.architecture.reference} with {depth} blocks: {found['untried']}")
    assert found["wrong"] == {}
