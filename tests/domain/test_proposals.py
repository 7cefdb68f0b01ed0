"""What a scan answers for methods that share the proposals of their family."""

from dataclasses import replace

import pytest
from records_zoo import layer, make_scan

from loradar.domain.architectures import PromptFacts
from loradar.domain.scans import Proposal
from loradar.domain.targets import Formula, TargetMatcher, TargetSpec, find_hits, without_exclusion
from loradar.errors import MethodDoesNotFit, UnknownPeftType, UnknownPreset

LAYERS = [
    *(layer(f"h.{n}.attn.c_attn", "transposed_linear", "attention.qkv") for n in range(2)),
    *(layer(f"h.{n}.mlp.fc", "linear", "mlp.up") for n in range(2)),
    *(replace(layer(f"h.{n}.conv", "conv2d", "conv.spatial"), groups=2) for n in range(2)),
    *(layer(f"h.{n}.experts.down", "expert_parameter", "expert.down") for n in range(2)),
]
SPEC = TargetSpec(target_modules=("c_attn", "fc", "conv"), target_parameters=("experts.down",))
FACTS = PromptFacts(2, 4, 16, 2, 8)


def proposed(spec=SPEC, layers=LAYERS, facts=FACTS):
    """Return a scan whose LoRA proposal has this spec."""
    proposal = Proposal(
        peft_type="LORA",
        preset="default",
        **spec.values,
        matched=8,
        formula=Formula(100, 0),
        reasons=("the reason",),
    )
    return replace(make_scan("gpt2", layers=layers, proposals=(proposal,)), prompt_facts=facts)


def test_a_method_that_fits_takes_its_familys_targets_as_they_are():
    """The answer is for the method asked, and says whose targets they are."""
    scan = proposed(TargetSpec(target_modules=("fc",)))
    found = scan.propose("loha")
    assert (found.peft_type, found.spec) == ("LOHA", TargetSpec(target_modules=("fc",)))
    assert found.reasons[0] == "LOHA shares LORA's targets"
    assert found.trainable is None  # LoHa is not of LoRA's size


def test_a_method_of_loras_size_keeps_the_formula():
    """As long as it adapts the same layers."""
    assert proposed(TargetSpec(target_modules=("fc",))).propose("HIRA").per_rank == 100
    assert proposed().propose("HIRA").per_rank is None


@pytest.mark.parametrize(
    ("name", "modules"),
    [("VERA", ("c_attn", "fc")), ("MISS", ("fc",)), ("LOHA", ("fc", "conv")), ("HRA", ("fc",)), ("ADALORA", None)],
)
def test_a_proposal_is_narrowed_to_what_a_method_adapts(name, modules):
    """Kinds, groups and experts; what is left out is said."""
    found = proposed().propose(name)
    assert set(found.spec.target_modules) == set(modules or SPEC.target_modules)
    assert found.spec.target_parameters is None
    assert any(f"which {name} cannot adapt" in reason for reason in found.reasons)
    assert found.matched == 2 * len(found.spec.target_modules)


def test_a_method_that_fits_nothing_says_so():
    """Rather than a spec that PEFT refuses."""
    scan = proposed(TargetSpec(target_modules=("c_attn",)))
    with pytest.raises(MethodDoesNotFit, match="LOKR cannot adapt transformers:gpt2: it adapts no transposed_linear"):
        scan.propose("LOKR")
    with pytest.raises(MethodDoesNotFit, match="no layer of it is one that OSF is for"):
        scan.propose("OSF")


def test_an_unknown_method_or_preset_is_answered_with_what_there_is():
    """A typo costs one more look."""
    with pytest.raises(UnknownPeftType, match=r"'LOHAA'. Closest: 'LOHA'"):
        proposed().propose("LOHAA")
    with pytest.raises(UnknownPreset, match="transformers:gpt2 has: 'default'"):
        proposed().propose("LOHA", "experts")


def test_prompt_learning_is_answered_with_facts():
    """Keys and values that are cached have widths of their own."""
    assert "num_attention_heads = 4, token_dim = 16" in proposed().propose("PROMPT_TUNING").reasons[1]
    found = proposed().propose("PREFIX_TUNING")
    assert found.spec == TargetSpec()
    assert found.reasons[1] == "its facts: num_layers = 2, num_key_value_heads = 2, key_value_dim = 8"
    with pytest.raises(MethodDoesNotFit, match="nothing tells its 'num_attention_heads', 'token_dim'"):
        proposed(facts=PromptFacts(2)).propose("P_TUNING")


def test_a_method_for_some_types_alone_is_refused_to_others():
    """PEFT has adaption prompts for three."""
    assert proposed().propose("ADAPTION_PROMPT").reasons
    other = replace(proposed(), architecture=replace(proposed().architecture, name="olmo2"))
    with pytest.raises(MethodDoesNotFit, match="PEFT has it for 'llama', 'mistral', 'gpt2' alone"):
        other.propose("ADAPTION_PROMPT")


@pytest.mark.parametrize("excluded", [("vision.q",), r"vision\..*"])
@pytest.mark.parametrize("targets", [("q", "v"), r".*\.(?:q|v)"])
def test_a_spec_without_exclusion_hits_the_same(targets, excluded):
    """For methods whose configuration has no `exclude_modules`."""
    spec = TargetSpec(target_modules=targets, exclude_modules=excluded)
    layers = [layer(f"{tower}.{name}") for tower in ("language", "vision", "vision.language") for name in "qvk"]
    folded = without_exclusion(spec)
    assert folded.exclude_modules is None
    assert (
        find_hits(folded, layers) == find_hits(spec, layers) != find_hits(replace(spec, exclude_modules=None), layers)
    )
    assert TargetMatcher(folded.target_modules).find("language.q")
