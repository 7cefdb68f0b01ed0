"""The catalog as a whole: where its proposals go, and where they must never go."""

import re
from itertools import product

import pytest

from loradar.catalog.entries import list_catalogs, read_catalog
from loradar.domain.targets import TargetMatcher, resolve_blocks

NEVER = {"head", "moe.router", "embedding.token", "embedding.position", "embedding.patch", "projector"}
MOST_PATHS = 4096
"""How many paths of one pattern are tried at most."""

CATALOGS = [read_catalog(file) for file in list_catalogs()]


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


def test_no_proposal_reaches_what_it_must_not(catalog):
    """0 heads, routers, embeddings and projectors in any preset, over the whole library."""
    strays = [
        f"{entry.architecture.reference} {proposal.peft_type} {proposal.preset}: {slot.pattern} is {slot.role}"
        for entry, proposal in each_proposal(catalog)
        for slot in hit_slots(entry, proposal)
        if slot.role in NEVER
    ]
    assert not strays


def test_no_proposal_reaches_what_gets_no_gradient(catalog):
    """0 dead layers, none read past its forward, none that a kernel bypasses; a norm is trained itself."""
    strays = [
        f"{entry.architecture.reference} {proposal.peft_type} {proposal.preset}: {slot.pattern}"
        for entry, proposal in each_proposal(catalog)
        for slot in hit_slots(entry, proposal)
        if slot.kind != "norm" and (slot.live is False or slot.bypassed or slot.kernel)
        if not any(other.live and other.pattern == slot.pattern for other in entry.slots)  # then it goes by numbers
    ]
    assert not strays


def test_every_proposal_stays_in_one_tower_or_names_several(catalog):
    """And hits something there."""
    strays = {
        f"{entry.architecture.reference} {proposal.peft_type} {proposal.preset}": towers
        for entry, proposal in each_proposal(catalog)
        if len(towers := {slot.tower for slot in hit_slots(entry, proposal)}) != 1
        if not (towers and any("towers are adapted" in reason for reason in proposal.reasons))
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
