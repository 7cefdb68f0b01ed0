"""Targets told in one architecture's names, said in another's: slot by slot, or not at all."""

import sys

import pytest
from anonymise import anonymise, original_paths
from scan_cache import scan

from loradar.adapters.translation import translate
from loradar.discovery.sources import build
from loradar.domain.targets import TargetSpec, find_hits
from loradar.references import Reference

SEED = 1
NAMES = ["llama", "t5", "bert", "gpt2", "mixtral", "mamba", "deepseek_v3", "swin"]


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    """Scans of an architecture and of its renamed copy, and the paths of the copy in the original's names."""
    original = build(Reference("transformers", request.param)).eval()
    renamed = anonymise(sys.modules[type(original).__module__], SEED).build_like(original)
    return scan(original), scan(renamed, method="dataflow"), original_paths(original, renamed)


def hit(spec, found):
    """Return the paths of the layers a spec takes."""
    return {layer.path for layer in find_hits(spec, found.layers)}


def test_a_copy_gets_the_layers_of_its_original(pair):
    """Every preset, layer by layer, and each reason names both sides; norms are no part of a structure.

    Nor are the layers outside the blocks that ``everything`` adds: alike ones stand for each other.
    """
    original, renamed, paths = pair
    proposals = [p for p in original.proposals if p.peft_type != "LN_TUNING" and p.preset != "everything"]
    assert proposals
    for proposal in proposals:
        said = translate(proposal.spec, original.slots, renamed)
        assert said is not None, proposal.preset
        assert {paths[path] for path in hit(said.spec, renamed)} == hit(proposal.spec, original)
        assert all(" stands for " in reason for reason in said.reasons)


@pytest.fixture(scope="module")
def llama():
    """A scan of llama."""
    return scan("llama")


@pytest.mark.parametrize(
    "spec",
    [
        TargetSpec(("nothing_like_it",)),
        TargetSpec(r"model\.layers\.3\.self_attn\.q_proj"),
        TargetSpec(("q_proj",), exclude_modules=("0.self_attn.q_proj",)),
        TargetSpec(("lm_head",)),
    ],
    ids=["hits nothing", "one index", "all but one index", "a head"],
)
def test_what_has_no_counterpart_is_not_said(llama, spec):
    """An index of one model says nothing about another's."""
    assert translate(spec, llama.slots, llama) is None


def test_what_is_excluded_stays_out(llama):
    """An exclusion is expanded, and what is left is named anew."""
    said = translate(TargetSpec(("q_proj", "k_proj"), exclude_modules=("k_proj",)), llama.slots, llama)
    assert said.spec == TargetSpec(("q_proj",))
    assert said.reasons == (
        "model.layers.*.self_attn.q_proj stands for model.layers.*.self_attn.q_proj (attention.query)",
    )


def test_slots_that_do_not_pair_are_not_said(llama):
    """One side has a slot more, or another role where the spec goes."""
    bert = scan("bert")
    assert translate(TargetSpec(("q_proj",)), llama.slots[:3], llama) is None
    assert translate(TargetSpec(("query",)), bert.slots, llama) is None
