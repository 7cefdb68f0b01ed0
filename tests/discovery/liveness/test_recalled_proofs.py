"""What was proved of an architecture, taken for a model of the user's: when, and of which layers."""

from dataclasses import replace

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from loradar.discovery import scan_module
from loradar.domain.layers import Slot
from loradar.domain.mappings import ArchitectureDetail

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
BLOCK = "model.layers.*"
DEAD = Slot("language", "attention.query", "linear", f"{BLOCK}.self_attn.q_proj", 2, live=False, proof="a test says so")
LIVE = Slot("language", "attention.value", "linear", f"{BLOCK}.self_attn.v_proj", 2, live=True)
HALF = replace(DEAD, pattern=f"{BLOCK}.mlp.up_proj", role="mlp.up", count=1)
MIXED = (HALF, replace(HALF, live=True, proof=None))


def llama(model_class=LlamaForCausalLM, **settings):
    """Build a small llama."""
    return model_class(LlamaConfig(**{**SMALL, **settings}))


def on_record(slots=(DEAD, LIVE, *MIXED), **changes):
    """Return what a registry would hold of llama, had somebody proved this of it."""
    architecture = replace(scan_module(llama(), method="names").architecture, **changes)
    return ArchitectureDetail(architecture, "names", "a small build", None, {}, slots, (), ())


def recalled(model, known):
    """Scan a model with something on record, and return whether it counts and what is live by name."""
    found = scan_module(model, method="names", recall=lambda _: known)
    return found.proof, {layer.name: layer.live for layer in found.layers}, found


def test_verdicts_are_taken_over_slot_by_slot():
    """What the slots agree on; where indices decide, nothing is known of a layer."""
    proof, live, found = recalled(llama(), on_record())
    assert proof == "a small build"
    assert (live["q_proj"], live["v_proj"], live["up_proj"], live["k_proj"]) == (False, True, None, None)
    assert found.propose().spec.target_modules == ("v_proj",)


@pytest.mark.parametrize(
    "settings",
    [{"num_hidden_layers": 3}, {"hidden_size": 32}, {"id2label": {0: "cat"}}, {"pad_token_id": 1}, {"rope_theta": 5.0}],
)
def test_sizes_and_names_do_not_matter(settings):
    """A proof is made on a build with other numbers itself."""
    assert recalled(llama(**settings), on_record())[0] == "a small build"


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (lambda: llama(attention_bias=True), {}),
        (lambda: llama(hidden_act="gelu"), {}),
        (lambda: llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), {}),
        (lambda: llama(LlamaModel), {}),
        (llama, {"library_version": "5.22.0"}),
        (llama, {"slots": (LIVE,)}),
    ],
)
def test_another_model_is_not_judged_by_it(model, changes):
    """Switches and words may change what is read, as may head and code. Where nothing is dead, nothing is asked."""
    proof, live, _ = recalled(model(), on_record(**changes))
    assert proof is None
    assert set(live.values()) == {None}


def test_what_is_not_on_record_is_scanned_as_ever():
    """Nobody has heard of it, or nobody proved it."""
    assert recalled(llama(), None)[0] is None
    assert recalled(llama(), replace(on_record(), proof=None))[0] is None


@pytest.mark.parametrize("depth", [2, 3, 7])
def test_a_verdict_on_the_last_block_is_taken_over_at_any_depth(depth):
    """A slot whose record names its blocks gives each layer the verdict of its place."""
    last = replace(HALF, blocks="-1")
    others = replace(HALF, live=True, proof=None, blocks=":-1")
    _, _, found = recalled(llama(num_hidden_layers=depth), on_record((DEAD, LIVE, last, others)))
    live = [layer.live for layer in found.layers if layer.name == "up_proj"]
    assert live == [True] * (depth - 1) + [False]
