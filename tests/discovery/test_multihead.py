"""``nn.MultiheadAttention`` and its subclasses: what is proposed is live, is said, and counted as PEFT trains it."""

import copy
import re

import multihead_zoo as zoo
import peft
import pytest
import torch
from torch import nn

import loradar
from loradar.adapters import LoraConfig, inject
from loradar.discovery import scan_listing
from loradar.discovery.facts.layers import list_layers
from loradar.discovery.liveness import prove
from loradar.domain.architectures import Architecture
from loradar.domain.patterns import pattern_of
from loradar.domain.submissions import ListedLayer
from loradar.errors import InvalidConfig

WHOLE = {
    "plain": zoo.Encoder,
    "passes on": lambda: zoo.Encoder(zoo.Block, zoo.PassesOn),
    "packed": lambda: zoo.Encoder(zoo.Block, zoo.Packed),
    "translator": zoo.Translator,
    "bias": lambda: zoo.Encoder(zoo.Block, bias=False, add_bias_kv=True, add_zero_attn=True),
}
"""Models whose attention is adapted as a whole."""
LEFT_OUT = {
    "returns a tensor": (lambda: zoo.Encoder(zoo.Block, zoo.ReturnsTensor), "ReturnsTensor .* returns no pair"),
    "several widths": (zoo.several_widths, "MultiheadAttention .* inputs of several widths"),
    "read outside": (lambda: zoo.Encoder(zoo.ReadsOutside), "4 layers never called"),
}
"""Models whose attention is left alone, with the reason."""


def lora(model, preset="default", **settings):
    """Return the LoRA proposal of a preset, and the fields of its spec for a configuration."""
    proposal = loradar.scan(model, **settings).propose(preset=preset)
    fields = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters")
    listed = {name: getattr(proposal, name) for name in fields}
    return proposal, {name: [*each] if isinstance(each, tuple) else each for name, each in listed.items() if each}


def dead(model):
    """Return the trained factors that one backward gives no gradient."""
    model.train()
    model(zoo.inputs()).square().sum().backward()
    factors = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert factors
    return [name for name, p in factors.items() if p.grad is None or not p.grad.abs().max() > 0]


def trained(model):
    """Return the number of parameters that require a gradient."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("preset", ["default", "attention", "all-linear"])
def test_an_attention_that_is_live_is_a_target_of_every_preset(build, preset):
    """It holds query and value; its parts are no targets of their own."""
    proposal, _ = lora(build(), preset)
    layers = {layer.path: layer for layer in list_layers(build())}
    matched = [path for path in layers if path.endswith(("attn",))]
    assert matched
    assert {"attn", "self_attn"} & {*proposal.target_modules}
    assert "out_proj" not in proposal.target_modules
    assert any("nn.MultiheadAttention is adapted" in reason for reason in proposal.reasons)
    assert not any("neither attention" in reason or "never called" in reason for reason in proposal.reasons)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("preset", ["default", "attention", "all-linear"])
@pytest.mark.parametrize("library", ["loradar", "peft"])
def test_every_adapter_learns_and_is_counted(build, preset, library):
    """In both libraries, at any rank; the heads that are saved count too."""
    proposal, spec = lora(build(), preset)
    for r in (2, 5):
        model = build()
        if library == "peft":
            adapted = peft.get_peft_model(model, peft.LoraConfig(r=r, init_lora_weights=False, **spec))
        else:
            adapted = inject(model, LoraConfig(r=r, init_lora_weights=False, **spec))
        assert trained(adapted) == proposal.formula.count(r)
        assert dead(adapted) == []


@pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
def test_an_adapted_attention_merges_into_itself(build):
    """The update of an output projection that a subclass calls is added once."""
    model, x = build().eval(), zoo.inputs()
    _, spec = lora(copy.deepcopy(model), "all-linear")
    adapted = inject(model, LoraConfig(init_lora_weights=False, **spec)).eval()
    expected = adapted(x)
    torch.testing.assert_close(adapted.merge_and_unload()(x), expected)


@pytest.mark.parametrize(("build", "says"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_an_attention_that_peft_cannot_adapt_is_left_out_with_the_reason(build, says):
    """Nothing of it is a target, and the feed-forward layers are."""
    proposal, _ = lora(build(), "all-linear")
    assert proposal.target_modules == ("up", "down")
    assert any(re.search(f"left out: .*{says}", reason) for reason in proposal.reasons)


@pytest.mark.parametrize("attention", [zoo.OwnProjections, zoo.CallsItselfMe])
def test_a_subclass_is_adapted_where_its_own_forward_computes(attention):
    """Linears of its own, and the output projection that it calls; the packed weight is never read."""
    build = lambda: zoo.Encoder(zoo.Block, attention)  # noqa: E731
    proposal, spec = lora(build(), "attention")
    assert proposal.target_modules == ("to_q", "to_k", "to_v", "out_proj")
    for adapt, make in ((inject, LoraConfig), (peft.get_peft_model, peft.LoraConfig)):
        adapted = adapt(build(), make(init_lora_weights=False, **spec))
        assert trained(adapted) == proposal.formula.count(8)
        assert dead(adapted) == []
    with pytest.raises(
        InvalidConfig, match=rf"'blocks.0.attn' \({attention.__name__}\) has a forward of its own, which reads"
    ):
        inject(build(), LoraConfig(target_modules=["attn"]))


def test_without_a_run_a_forward_of_its_own_is_no_target():
    """Nothing shows that it uses its projections."""
    proposal, _ = lora(zoo.Encoder(zoo.Block, zoo.PassesOn), "all-linear", method="names")
    assert proposal.target_modules == ("up", "down")
    assert any("which no run has shown" in reason for reason in proposal.reasons)
    assert "attn" in lora(zoo.Encoder(), "all-linear", method="names")[0].target_modules


@pytest.mark.parametrize(
    ("build", "live"),
    [
        (zoo.Encoder, True),
        (lambda: zoo.Encoder(zoo.Block, zoo.Packed), True),
        (lambda: zoo.Encoder(zoo.Ignores), False),
        (lambda: zoo.Encoder(zoo.ReadsOutside), None),
    ],
)
def test_an_attention_is_proved_like_any_layer(build, live):
    """Its adapter changes both of its weights, and merges into them."""
    layers = list_layers(build())
    proof = prove(build(), "as it is", {pattern_of(layer.path) for layer in layers if layer.kind != "norm"})
    assert {proof.verdicts[f"blocks.{n}.attn"].live for n in range(2)} == {live}
    assert proof.says == "as it is: forward, backward, merged within 1e-04"


def test_a_dead_attention_is_left_out():
    """It is called, and what it writes is not used."""
    proposal = loradar.scan(zoo.Encoder(zoo.Ignores), proved=True).propose(preset="all-linear")
    assert proposal.target_modules == ("up", "down")
    assert "left out: 2 layers known to get no gradient" in proposal.reasons


def test_the_norms_beside_an_attention_are_between_the_layers():
    """LN_TUNING leaves only the norms inside an attention alone."""
    assert loradar.scan(zoo.Encoder()).propose("LN_TUNING").target_modules == ("norm1", "norm2")


def test_other_methods_leave_the_attention_out():
    """Of PEFT's methods LoRA alone adapts it."""
    proposal = loradar.scan(zoo.Encoder()).propose("LOHA", "all-linear")
    assert proposal.target_modules == ("up", "down")
    assert "left out: 2 multihead_attention layers, which LOHA cannot adapt" in proposal.reasons


def test_a_part_beside_its_attention_is_rejected():
    """The attention passes the updated weight of its output projection in already."""
    for attention in (nn.MultiheadAttention, zoo.Packed):
        with pytest.raises(InvalidConfig, match=r"'blocks.0.attn.out_proj' .* is adapted with the attention around it"):
            inject(zoo.Encoder(zoo.Block, attention), LoraConfig(target_modules=["attn", "out_proj"]))


def test_a_listed_attention_of_another_class_is_no_target():
    """Its forward may be its own, and a list of weights shows none."""
    weights = [(f"layers.{n}.{name}", shape) for n in range(2) for name, shape in (("a.in_proj_weight", (12, 4)),)]
    dense = [ListedLayer(f"layers.{n}.up", (8, 4)) for n in range(2)]

    def targets(class_name):
        listed = [ListedLayer(path, shape, class_name) for path, shape in weights]
        return (
            scan_listing(Architecture("torch", "sent"), [*listed, *dense]).propose(preset="all-linear").target_modules
        )

    assert targets("MultiheadAttention") == ("a", "up")
    assert targets("Gated") == ("up",)
