"""The catalog as a whole: where its proposals go, and where they must never go."""

import re
from collections import Counter
from itertools import product

import pytest
from packaged import packaged_catalogs

from loradar.catalog.entries import list_catalogs
from loradar.domain.targets import TargetMatcher, resolve_blocks

ADDED = {"embedding.patch", "embedding.condition", "modulation", "projector"}
NEVER = {"head", "moe.router", "embedding.token", "embedding.position", *ADDED}
MOST_PATHS = 4096
"""How many paths of one pattern are tried at most."""

CATALOGS = packaged_catalogs()


def paths_of(pattern, indices):
    """Yield paths a slot's pattern stands for: any index in any place, unless those are too many."""
    pieces = pattern.split("*")
    places = len(pieces) - 1
    all_of_them = product(indices, repeat=places)
    for numbers in all_of_them if len(indices) ** places <= MOST_PATHS else ((n,) * places for n in indices):
        yield "".join(piece + number for piece, number in zip(pieces, (*numbers, ""), strict=True))


def hit_slots(entry, proposal):
    """Return the slots a proposal reaches into; a spec may go by indices, so those it names are tried."""
    spec = resolve_blocks(proposal.spec)
    indices = sorted({"0", "1", *re.findall(r"\d+", str(spec))})
    modules, parameters = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.target_parameters or ())
    excluded = TargetMatcher(spec.exclude_modules or ())
    found = []
    for slot in entry.slots:
        matcher = parameters if slot.kind == "expert_parameter" else modules
        if any(matcher.find(path) and not excluded.find(path) for path in paths_of(slot.pattern, indices)):
            found.append(slot)
    return found


def each_proposal(catalog):
    """Yield (entry, proposal) once for every structure: what another depth has in common need not be asked again."""
    asked = set()
    for entry in catalog.entries:
        for proposal in entry.proposals:
            key = (tuple((slot.pattern, slot.role, slot.tower) for slot in entry.slots), proposal.spec)
            if key not in asked:
                asked.add(key)
                yield entry, proposal


@pytest.fixture(params=CATALOGS, ids=lambda catalog: catalog.header.library)
def catalog(request):
    """Each library's catalog."""
    return request.param


def alike(slot, entry):
    """Return the slots whose layers differ from those of a slot by numbers, which a pattern does not show."""
    return [other for other in entry.slots if other.pattern == slot.pattern]


def test_no_proposal_reaches_what_it_must_not(catalog):
    """0 heads, routers, embeddings and projectors in any preset but `everything`, over the whole library."""
    strays = [
        f"{entry.architecture.reference} {proposal.peft_type} {proposal.preset}: {slot.pattern} is {slot.role}"
        for entry, proposal in each_proposal(catalog)
        for slot in hit_slots(entry, proposal)
        if slot.role in NEVER - (ADDED if proposal.preset == "everything" else frozenset())
        if not (proposal.preset == "everything" and any(x.role not in NEVER for x in alike(slot, entry)))
    ]
    assert not strays


BY_NUMBER = {
    (
        "diffusers:AutoencoderTiny",
        "everything",
    ): "only the decoder, which learns, has layers 16 and 18 of its two stacks"
}


def test_no_proposal_reaches_what_gets_no_gradient(catalog):
    """0 dead layers, none read past its forward, none that a kernel bypasses; a norm is trained itself."""
    strays = [
        f"{entry.architecture.reference} {proposal.peft_type} {proposal.preset}: {slot.pattern}"
        for entry, proposal in each_proposal(catalog)
        for slot in hit_slots(entry, proposal)
        if slot.kind != "norm" and (slot.live is False or slot.bypassed or slot.kernel)
        if not any(other.live for other in alike(slot, entry))  # then it goes by numbers
        if not (proposal.preset == "everything" and any(x.live is None for x in alike(slot, entry)))
        if (entry.architecture.reference, proposal.preset) not in BY_NUMBER
    ]
    assert not strays


ONE_BLOCK = {
    "transition|fuse_layers": "hrnet crosses its scales one by one",
    r"downsample\.conv|total|\.layer\.|^features": "a short sequence of layers, each in a place of its own",
    r"^blocks\.\*\.proj|shortcut|patch_embed\.conv$": "a projection where the width changes, and no module elsewhere",
    r"conv_(pw|pwl|dw|exp)$|conv2_kxk|^blocks\.\*\.\*\.conv$": "a convolution, mixed, grouped or wide in other blocks",
    r"group_conv3x3$": "a convolution whose groups do not divide the rank in other blocks",
    r"output_hypernetworks_mlps|bridge|neck": "one network for each mask or scale, some of which are not read",
    r"attn\.out_proj_cam$": "the output of an attention in every fourth block, and of a recurrence in the others",
    r"^backbone\.encoder\.layer": "vitpose's configuration names the layer that it returns",
}
"""Layers whose blocks are named one by one, and why: their architecture does so itself."""
ANY_ODD, ANY_EVEN = "1001", "1002"


def list_starts(slot):
    """Return the patterns of the parts that an index of a slot's pattern names, by its place; a layer is no part."""
    names = slot.pattern.split(".")
    return {place: ".".join(names[: place + 1]) for place, name in enumerate(names[:-1]) if name == "*"}


def list_blocks(slots):
    """Return the patterns of blocks of several layers, without stages, which hold blocks themselves."""
    known = [slot for slot in slots if slot.kind != "norm" and not slot.role.startswith("expert.")]
    slot_of = {slot.pattern: slot for slot in known}
    inside = Counter(start for slot in slot_of.values() for start in list_starts(slot).values())
    several = [start for start, count in inside.items() if count > 1]
    return {start for start in several if not any(other.startswith(f"{start}.") for other in several)}


def named_blocks(scan, spec):
    """Yield the patterns of slots of which a spec matches a block, not the first, by its own index."""
    modules, excluded = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.exclude_modules or ())
    indices = sorted({*re.findall(r"\d+", f"{spec.target_modules} {spec.exclude_modules}"), ANY_ODD, ANY_EVEN}, key=int)

    def is_hit(names):
        path = ".".join(names)
        return modules.find(path) is not None and excluded.find(path) is None

    blocks = list_blocks(scan.slots) if len(indices) > 2 else ()
    for slot in scan.slots:
        for place in (place for place, start in list_starts(slot).items() if start in blocks):
            for path in paths_of(slot.pattern, indices):
                names = path.split(".")
                alike = [*names]
                alike[place] = ANY_ODD if int(names[place]) % 2 else ANY_EVEN
                if names[place] != "0" and is_hit(names) != is_hit(alike):
                    yield slot.pattern
                    break


def test_no_block_is_named_by_its_index(catalog):
    """A spec holds for every depth: 0 indices of blocks, but where the architecture itself names one."""
    strays = {
        f"{entry.architecture.reference}: {pattern}"
        for entry, proposal in each_proposal(catalog)
        if proposal.peft_type == "LORA" and proposal.preset in ("default", "all-linear")
        for pattern in named_blocks(entry, proposal.spec)
        if not any(re.search(known, pattern) for known in ONE_BLOCK)
    }
    assert not strays


def test_every_proposal_stays_in_one_tower_or_names_several(catalog):
    """And hits something there."""
    strays = {
        f"{entry.architecture.reference} {proposal.peft_type} {proposal.preset}": towers
        for entry, proposal in each_proposal(catalog)
        if len(towers := {slot.tower for slot in hit_slots(entry, proposal)}) != 1
        if not (towers and any("towers are adapted" in reason for reason in proposal.reasons))
        if proposal.preset != "everything"
    }
    assert not strays


def test_every_name_is_scanned_or_says_why_not(catalog):
    """And what is scanned has slots, and something is proposed for it, with what it hits and why."""
    for entry in catalog.entries:
        if entry.unscanned is not None:
            assert entry.unscanned
            continue
        assert entry.slots, entry.architecture.name
        assert len(entry.checks) == len(entry.proposals)
        assert all(proposal.matched and proposal.reasons for proposal in entry.proposals), entry.architecture.name


def test_the_default_reaches_a_layer_of_everything_scanned(catalog):
    """Nobody has to say where: each has a default for LoRA, and one of its layers may learn, if any of it can."""
    without = [
        entry.architecture.name
        for entry in catalog.entries
        if any(slot.live is not False for slot in entry.slots if slot.kind != "norm")
        and not any(
            slot.live is not False
            for proposal in entry.proposals
            if (proposal.peft_type, proposal.preset) == ("LORA", "default")
            for slot in hit_slots(entry, proposal)
        )
    ]
    assert not without


def test_the_catalog_is_small():
    """Its files are text in a repository."""
    assert sum(len(file.read_bytes()) for file in list_catalogs()) <= 10_000_000
