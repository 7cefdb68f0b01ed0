"""What is proposed for methods that do not share LoRA's targets, and whether PEFT trains what is stated."""

import warnings
from dataclasses import replace
from functools import cache

import peft
import pytest
from discovery_zoo import ConvNet, Decoder, SparseDecoder
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.other import _prepare_prompt_learning_config
from scan_cache import scan

from loradar.discovery import scan_module, sources
from loradar.discovery.proposals import Subject, propose_all
from loradar.discovery.saved_modules import Saved
from loradar.domain.targets import find_hits
from loradar.errors import MethodDoesNotFit
from loradar.references import Reference
from loradar.schema import to_json

TRANSFORMERS = [
    *("llama", "gpt2", "bert", "roberta", "t5", "bart", "whisper", "vit", "convnext", "regnet", "mamba", "falcon"),
    *("nemotron_h", "llava", "deepseek_v3", "gpt_oss", "mixtral", "phi3", "modernbert", "deberta-v2", "albert"),
    *("gemma3_text", "qwen3", "qwen3_moe", "jamba", "rwkv", "wav2vec2", "blip-2", "xlnet", "opt", "bloom", "mpt"),
]
TIMM = [
    *("resnet18", "resnet50", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224", "levit_128"),
    *("mobilenetv3_small_100", "efficientnet_b0", "poolformer_s12", "maxvit_tiny_tf_224", "mixer_s16_224"),
    *("regnetx_002", "beit_base_patch16_224", "densenet121", "edgenext_xx_small", "volo_d1_224", "nf_resnet26"),
]
GUARDED = ("incompatible with Mamba-based models",)
"""PEFT refuses out_proj and conv1d by name, whether a fused kernel bypasses them or not."""
PEFT_DOES_NOT = {"mamba": GUARDED, "nemotron_h": GUARDED, "jamba": GUARDED, "deepseek_v3": ("rewritten",)}
"""In the types whose experts transformers 5 fused, PEFT takes `gate_proj` for the experts' wherever it stands."""
PROMPTED = ["llama", "gpt2", "bert", "t5", "bart", "qwen3", "gemma3_text", "gemma4", "llava", "bloom", "falcon", "opt"]


@cache
def found(reference):
    """Return the scan of a reference; each is made once."""
    return scan(reference, method="names")


def counted(model, proposal, rank):
    """Return the parameters PEFT trains after it has injected a proposal, or why it does not inject it as it is."""
    fields = {name: value for name, value in to_json(proposal.spec).items() if value is not None}
    if proposal.peft_type == "LORA":
        fields = {"r": rank, "target_modules": [], **fields}
    if proposal.peft_type == "IA3":
        fields = {"feedforward_modules": [], **fields}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(proposal.peft_type)](**fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adapted = peft.get_peft_model(model, config, low_cpu_mem_usage=proposal.peft_type == "LORA")
        except ValueError as error:
            return str(error)
    if getattr(adapted.peft_config["default"], "rank_pattern", None):  # no rank was asked for by layer
        return "rewritten"
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("reference", [*TRANSFORMERS, *(f"timm:{name}" for name in TIMM)])
def test_peft_trains_exactly_what_is_stated(reference):
    """Heads saved, convolutions and experts included: the formula is the count of an injected model."""
    for number, proposal in enumerate(found(reference).proposals):
        if proposal.preset in ("attention", "mlp"):
            continue  # parts of all-linear
        rank = (4, 8)[number % 2]
        model = sources.build(Reference.parse(reference))
        stated = rank * proposal.per_rank + proposal.fixed
        seen = counted(model, proposal, rank)
        if isinstance(seen, str):
            assert any(why in seen for why in PEFT_DOES_NOT.get(reference, ())), seen
        else:
            assert seen == stated, (proposal.peft_type, proposal.preset)


@pytest.mark.parametrize(
    ("name", "targets", "feedforward"),
    [
        ("llama", ("k_proj", "v_proj", "down_proj"), ("down_proj",)),
        ("gpt2", ("c_attn", "mlp.c_proj"), ("mlp.c_proj",)),
        ("gpt_oss", ("k_proj", "v_proj"), None),  # its second feed-forward layers are fused experts
        ("timm:poolformer_s12", ("fc2",), ("fc2",)),
    ],
)
def test_ia3_scales_keys_values_and_the_second_feed_forward_layer(name, targets, feedforward):
    """Or the projection that holds keys and values."""
    spec = found(name).propose("IA3").spec
    assert (spec.target_modules, spec.feedforward_modules or None) == (targets, feedforward)


def test_ln_tuning_takes_the_norms_between_layers():
    """Neither those of queries and keys, nor one of the embeddings; the last one even where it is listed first."""
    assert (
        found("qwen3").propose("LN_TUNING").spec.target_modules
        == (
            "input_layernorm",
            "post_attention_layernorm",
            "model.norm",
        )
        or found("qwen3").propose("LN_TUNING").matched == 2 * 32 + 1
    )
    assert not [
        x for x in find_hits(found("qwen3").propose("LN_TUNING").spec, found("qwen3").layers) if "_norm" in x.name
    ]
    hit = {layer.name for layer in find_hits(found("opt").propose("LN_TUNING").spec, found("opt").layers)}
    assert hit == {"self_attn_layer_norm", "final_layer_norm"}
    hit = find_hits(found("bart").propose("LN_TUNING").spec, found("bart").layers)
    assert not [layer.path for layer in hit if "embedding" in layer.name]


def test_osf_and_beft_take_linear_layers_alone():
    """Gpt2 has none: its layers are transposed."""
    assert found("llama").propose("OSF").spec == found("llama").propose(preset="all-linear").spec
    assert found("llama").propose("BEFT").spec.target_modules == ("v_proj",)
    for name in ("OSF", "BEFT"):
        with pytest.raises(MethodDoesNotFit, match=f"{name} cannot adapt transformers:gpt2"):
            found("gpt2").propose(name)


def test_a_hybrid_says_which_kinds_of_block_it_reaches():
    """The default reaches the blocks with attention and no other."""
    coverage = {item.block: (item.hit, item.of) for item in found("nemotron_h").propose().coverage}
    assert coverage["model.layers.* (NemotronHAttention)"] == (1, 1)
    assert sum(hit for hit, _ in coverage.values()) == 1
    assert found("nemotron_h").propose().reached == 0.023443


def test_fused_experts_come_with_their_layout():
    """How many stand in one parameter, and that gate and up are adapted together."""
    told = scan(SparseDecoder()).propose(preset="experts").reasons
    assert any("experts in one parameter" in reason and "gate and up in one" in reason for reason in told)
    assert any("with a bias" in reason for reason in found("gpt_oss").propose(preset="experts").reasons)


def changed(model, name, **facts):
    """Return the LoRA proposals for a model in which the layers of a name have other facts."""
    seen = scan_module(model)
    layers = tuple(replace(layer, **facts) if layer.name == name else layer for layer in seen.layers)
    norms = {layer.path: 1 for layer in layers if layer.kind == "norm"}
    return propose_all(Subject(layers, seen.module_paths, (), norms, Saved(), 0))


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"live": False}, "known to get no gradient"),
        ({"bypassed": "model.py:7"}, "never called, whose weight is read at model.py:7"),
        ({"kernel": "model.py:9"}, "attention.output layers bypassed under model.py:9"),
    ],
)
def test_what_gets_no_gradient_is_never_proposed(facts, why):
    """Dead, bypassed, or bypassed under a fused kernel: whatever the family, and the reason is told."""
    proposals = changed(Decoder(), "o_proj", **facts)
    assert not [p for p in proposals if "o_proj" in str(p.spec.target_modules)]
    assert all(any(why in reason for reason in proposal.reasons) for proposal in proposals)


@pytest.mark.parametrize("name", PROMPTED)
def test_the_facts_of_prompt_learning_are_pefts(name):
    """What PEFT works out from the configuration, for both kinds of methods."""
    facts = found(name).prompt_facts
    config = sources.build(Reference.parse(name)).config
    prompt = _prepare_prompt_learning_config(peft.PromptTuningConfig(), config)
    assert (facts.num_layers, facts.num_attention_heads, facts.token_dim) == (
        prompt.num_layers,
        prompt.num_attention_heads,
        prompt.token_dim,
    )
    prefix = _prepare_prompt_learning_config(peft.PrefixTuningConfig(), config)
    assert (facts.num_key_value_heads, facts.key_value_dim) == (prefix.num_attention_heads, prefix.token_dim)


def test_depth_and_width_are_told_from_the_layers_without_a_configuration():
    """Heads are not: a projection does not show them."""
    facts = scan(Decoder()).prompt_facts
    assert (facts.num_layers, facts.token_dim, facts.num_attention_heads) == (3, 8, None)
    assert scan(ConvNet()).prompt_facts.num_layers is None
