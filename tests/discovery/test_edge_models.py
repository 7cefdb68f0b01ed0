"""Edge cases of real architectures, rows 22 to 42: towers, heads, ties, words, and models that are odd as a whole.

Every docstring names its exhibit and its row in the list of edge cases. Rows are asserted as far as a scan goes: what
only an injected adapter can show (liveness) or a registry can hold (renames between versions) is proved elsewhere.
"""

import pytest
import timm
import torch
from edge_zoo import (
    MISNAMED,
    PRESETS,
    Found,
    Linear4bit,
    MisnamedBlock,
    Mxfp4Experts,
    PackedLinear,
    RootList,
    Stack,
    found,
    quantised,
)
from huggingface_hub import constants
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from loradar.discovery import scan
from loradar.errors import HubFailed, LoradarError

# --- towers and compositions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "language", "vision"),
    [
        ("llama4", "language_model", "vision_model"),
        ("gemma3", "model.language_model", "model.vision_tower"),
        ("llava", "model.language_model", "model.vision_tower"),
        ("blip-2", "language_model", "vision_model"),
        ("gemma4 with towers", "model.language_model", "model.vision_tower"),
    ],
)
def test_the_same_leaf_in_two_towers_is_told_apart(name, language, vision):
    """llama4, gemma3, llava, blip-2: presets stay in the language tower of what generates text (edge case 22)."""
    seen = found(name)
    towers = seen.data["towers"]
    assert (towers["language"], towers["vision"]) == ([language], [vision])
    assert {layer["tower"] for layer in seen.data["layers"] if layer["path"].startswith(f"{vision}.")} == {"vision"}
    for preset in PRESETS:
        assert all(path.startswith(f"{language}.") for path in seen.hits(preset))


def test_both_towers_of_a_dual_encoder_are_adapted():
    """siglip: the loss comes from both (edge case 22)."""
    seen = found("siglip")
    for preset in PRESETS:
        assert {path.partition(".")[0] for path in seen.hits(preset)} == {"text_model", "vision_model"}


def test_three_towers_are_three():
    """gemma4 with towers and qwen3_omni_moe_thinker: language, vision and audio (edge cases 18, 22)."""
    for name in ("gemma4 with towers", "qwen3_omni_moe_thinker"):
        towers = found(name).data["towers"]
        assert {tower for tower in ("language", "vision", "audio") if len(towers[tower]) == 1} == {
            "language",
            "vision",
            "audio",
        }


def test_the_text_model_decides_the_default():
    """blip-2: q and v on T5, q_proj and v_proj on OPT (edge case 23)."""
    assert found("blip-2 on t5").scan.propose().spec.target_modules == ("q", "v")
    assert found("blip-2").scan.propose().spec.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("whole", "text", "prefixes"),
    [
        ("gemma3", "gemma3_text", ("model.language_model.", "model.")),
        ("llama4", "llama4_text", ("language_model.model.", "model.")),
        ("llava", "llama", ("model.language_model.", "model.")),
        ("blip-2", "opt", ("language_model.model.", "model.")),
        ("blip-2 on t5", "t5", ("language_model.", "")),
    ],
)
def test_language_slots_are_those_of_the_text_model(whole, text, prefixes):
    """gemma3 holds gemma3_text, llama4 holds llama4_text, blip-2 holds OPT or T5 (edge cases 23, 24)."""
    inside, outside = prefixes
    composed = {
        (slot.role, slot.kind, slot.pattern.removeprefix(inside))
        for slot in found(whole).scan.slots
        if slot.pattern.startswith(inside)
    }
    alone = {
        (slot.role, slot.kind, slot.pattern.removeprefix(outside))
        for slot in found(text).scan.slots
        if slot.pattern.startswith(outside)
    }
    assert composed == alone


# --- heads and embeddings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("llama", "lm_head"),
        ("modernbert", "decoder"),
        ("albert", "predictions.decoder"),
        ("whisper", "proj_out"),
        ("electra", "generator_lm_head"),
        ("roberta", "lm_head.dense"),
        ("modernbert", "head.dense"),
        ("albert", "predictions.dense"),
        ("mobilebert", "cls.predictions.dense"),
        ("roberta classifier", "classifier.dense"),
        ("roberta classifier", "classifier.out_proj"),
        ("bert for questions", "qa_outputs"),
        ("gpt2 classifier", "score"),
        ("levit", "classifier.linear"),
        ("timm:vit_tiny_patch16_224", "head"),
        ("timm:convnext_atto", "head.fc"),
        ("timm:resnet18", "fc"),
        ("timm:efficientnet_b0", "classifier"),
    ],
)
def test_heads_are_known_whatever_their_name(name, head):
    """lm_head, decoder, proj_out ..., with what transforms before them (edge cases 25 to 28)."""
    assert found(name).one(head, "role") == "head"
    assert head not in found(name).proposed()


def test_a_timm_model_without_classes_has_no_head():
    """timm: with num_classes=0 the classifier is an Identity; siglip pools by attention instead (edge case 28)."""
    with torch.device("meta"):
        assert Found(timm.create_model("vit_tiny_patch16_224", num_classes=0)).count("head") == 0
    seen = found("timm:vit_base_patch16_siglip_224")
    assert seen.count("head") == 0
    assert not [pattern for pattern in seen.proposed() if pattern.startswith("attn_pool")]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "efficientnet_b0", "convnext_atto"])
def test_a_convolutional_network_is_more_than_its_head(name):
    """resnet18 and others: pointwise convolutions are proposed, depthwise ones and the head are not (edge case 29)."""
    seen = found(f"timm:{name}")
    layers = {layer["path"]: layer for layer in seen.data["layers"]}
    for preset in ("default", "all-linear"):
        hit = [layers[path] for path in seen.hits(preset)]
        assert len(hit) > 1
        assert {layer["groups"] for layer in hit} == {1}


@pytest.mark.parametrize(
    ("name", "tail", "times"), [("albert", "attention.query", 12), ("zamba2", "self_attn.q_proj", 9)]
)
def test_a_shared_block_says_how_often_it_runs(name, tail, times):
    """albert: one block runs twelve times; zamba2: one attention serves nine layers (edge case 30)."""
    assert f"shared x {times}" in found(name).words(tail)


@pytest.mark.parametrize(
    ("name", "ties"),
    [
        ("t5", {("encoder.embed_tokens", "shared"), ("decoder.embed_tokens", "shared"), ("lm_head", "shared")}),
        ("gpt2", {("lm_head", "transformer.wte")}),
        ("mamba", {("lm_head", "backbone.embeddings")}),
    ],
)
def test_tied_weights_form_groups(name, ties):
    """t5, gpt2, mamba: the head and the embeddings are one weight (edge case 31)."""
    assert {(layer["path"], layer["tied_to"]) for layer in found(name).data["layers"] if layer["tied_to"]} == ties


@pytest.mark.parametrize(
    ("name", "tails"),
    [
        ("t5", ("encoder.block.*.layer.*.SelfAttention", "decoder.block.*.layer.*.SelfAttention", "EncDecAttention")),
        ("bart", ("encoder.layers.*.self_attn", "decoder.layers.*.self_attn", "encoder_attn")),
        ("whisper", ("encoder.layers.*.self_attn", "decoder.layers.*.self_attn", "encoder_attn")),
    ],
)
def test_each_stack_has_its_slots(name, tails):
    """t5, bart, whisper: self attention of both stacks and cross attention, single letters or not (edge case 32)."""
    leaves = ("q", "k", "v", "o") if name == "t5" else ("q_proj", "k_proj", "v_proj", "out_proj")
    expected = [f"attention.{part}" for part in ("query", "key", "value", "output")]
    for tail in tails:
        assert [found(name).one(f"{tail}.{leaf}", "role") for leaf in leaves] == expected
        assert all(any(tail in pattern for pattern in found(name).hit_patterns(p)) for p in ("default", "attention"))


def test_a_single_letter_means_nothing_by_itself():
    """A user's layers named q and o that feed no attention are no attention (edge case 32)."""

    class Letters(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.o = nn.Linear(8, 32), nn.Linear(32, 8)

        def forward(self, x):
            return x + self.o(nn.functional.gelu(self.q(x)))

    seen = Found(Stack(Letters), example_inputs=(torch.zeros(1, 3, 8),))
    assert seen.roles("q", "o") == {"q": "mlp.up", "o": "mlp.down"}


@pytest.mark.parametrize(
    ("name", "tail", "role"),
    [
        ("distilbert", "attention.q_lin", "attention.query"),
        ("distilbert", "ffn.lin1", "mlp.up"),
        ("deberta-v2", "attention.self.query_proj", "attention.query"),
        ("deberta-v2", "attention.self.value_proj", "attention.value"),
        ("fastspeech2_conformer", "self_attn.linear_q", "attention.query"),
        ("fastspeech2_conformer", "self_attn.linear_out", "attention.output"),
        ("deformable_detr", "encoder.layers.*.self_attn.value_proj", "attention.value"),
        ("deformable_detr", "encoder.layers.*.self_attn.output_proj", "attention.output"),
    ],
)
def test_other_words_for_the_same_roles(name, tail, role):
    """distilbert, deberta-v2, fastspeech2_conformer, deformable_detr have words of their own (edge case 33)."""
    assert found(name).one(tail, "role") == role


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("deformable_detr", "encoder.layers.*.self_attn.sampling_offsets"),
        ("deformable_detr", "encoder.layers.*.self_attn.attention_weights"),
        ("rwkv", "attention.key"),
        ("rwkv", "attention.receptance"),
        ("rwkv", "feed_forward.key"),
    ],
)
def test_words_of_attention_where_there_is_none(name, tail):
    """The key and receptance of rwkv, DETR's offsets and weights are no query, key or value (edge case 33)."""
    assert not found(name).one(tail, "role").startswith(("attention.query", "attention.key", "attention.value"))


def test_names_may_say_the_opposite():
    """A user's block whose names are all wrong: structure comes before names (edge case 33)."""
    seen = Found(Stack(MisnamedBlock), example_inputs=(torch.zeros(1, 5, 32),))
    assert seen.roles(*MISNAMED) == MISNAMED
    assert seen.hit_patterns("default") == {"blocks.*.down_proj", "blocks.*.o_proj"}
    assert any(item["by"] == "names" for layer in seen.layers("q_proj") for item in layer["evidence"])


def test_a_recomputed_weight_is_no_target():
    """wav2vec2: the positional convolution has weight norm, so there is no weight to adapt (edge case 34)."""
    seen = found("hubert")
    assert not [layer for layer in seen.data["layers"] if "pos_conv_embed" in layer["path"] and layer["kind"] != "norm"]
    assert not [pattern for pattern in seen.proposed() if "pos_conv_embed" in pattern]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("llama4_vision_model", "patch_embedding.linear"),
        ("albert", "embedding_hidden_mapping_in"),
        ("electra", "embeddings_project"),
        ("gemma4", "per_layer_model_projection"),
    ],
)
def test_a_linear_that_belongs_to_the_embedding_is_left_alone(name, tail):
    """llama4's patches, albert's and electra's factorised embeddings, gemma4's per-layer inputs (edge case 35)."""
    seen = found(name)
    assert not seen.one(tail, "role").startswith(("attention.", "mlp.", "mixer.", "expert.", "head"))
    assert not [pattern for pattern in seen.proposed() if pattern.endswith(tail)]


# --- quantised, odd, old, huge and remote ---------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [PackedLinear, Linear4bit], ids=lambda kind: kind.__name__)
def test_a_quantised_linear_is_a_linear(linear):
    """GPTQ, AWQ, HQQ, bitsandbytes: packed weights, known by their features, no library needed (edge case 36)."""
    seen = Found(quantised(linear))
    assert (seen.one("up_proj", "kind"), seen.one("down_proj", "kind")) == ("linear", "linear")
    assert (seen.one("up_proj", "in_features"), seen.one("up_proj", "out_features")) == (16, 32)
    assert {"layers.*.up_proj", "layers.*.down_proj"} == seen.hit_patterns("all-linear")


def test_a_linear_that_rounds_its_weight_itself_is_a_linear():
    """I-BERT's class of its own has a linear's features and weight, and returns a tuple (edge case 36)."""
    seen = Found("transformers:ibert")
    assert (seen.one("self.query", "kind"), seen.one("self.query", "role")) == ("linear", "attention.query")
    assert seen.hit_patterns("default") == {
        f"ibert.encoder.layer.*.attention.self.{leaf}" for leaf in ("query", "value")
    }


def test_packed_experts_are_not_proposed_as_matrices():
    """gpt-oss as released: blocks and scales are no expert matrices (edge case 36)."""
    seen = Found(nn.ModuleDict({"layers": nn.ModuleList([Mxfp4Experts(), nn.Linear(4, 4)]), "out": nn.Linear(4, 2)}))
    assert not seen.experts
    assert not [path for preset in PRESETS for path in seen.hits(preset) if "blocks" in path or "scales" in path]


def test_a_path_may_contain_a_word_of_parameters():
    """A module called weighted_averaging or lora_A: paths are kept segment by segment (edge case 37; peft#2772)."""
    model = Stack(
        lambda: nn.ModuleDict({"msa_pair_weighted_averaging": MisnamedBlock(), "bias": MisnamedBlock()}), "weight"
    )
    seen = Found(model, method="names")
    assert {layer["path"] for layer in seen.data["layers"]} <= {path for path, _ in model.named_modules()}
    for preset in PRESETS:
        assert seen.hits(preset) <= {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}


def test_the_list_of_layers_may_be_the_root():
    """Blocks at the root go by bare indices (edge case 38; peft#2158)."""
    seen = Found(RootList(), example_inputs=(torch.zeros(1, 5, 32),))
    assert {layer["block"] for layer in seen.data["layers"]} == {"0", "1"}
    assert seen.hit_patterns("default") == {"*.down_proj", "*.o_proj"}


@pytest.mark.parametrize(
    ("name", "lists"),
    [
        ("t5", {"encoder.block", "decoder.block"}),
        ("blip-2", {"vision_model.encoder.layers", "qformer.encoder.layer", "language_model.model.decoder.layers"}),
    ],
)
def test_there_may_be_several_lists_of_layers(name, lists):
    """t5 has two, blip-2 three (edge case 38; peft#3624)."""
    blocks = {layer["block"] for layer in found(name).data["layers"] if layer["depth"]}
    assert all(any(block.startswith(f"{held}.") for block in blocks) for held in lists)


def test_paths_are_those_of_the_installed_version():
    """Version 5 renamed vit's query, mixtral's w1, gpt_neox's head: a scan says its version (edge case 39)."""
    assert found("vit").one("attention.q_proj", "role") == "attention.query"
    assert found("mixtral").one("mlp.experts.gate_up_proj", "role") == "expert.gate_up"
    assert found("gpt_neox").one("lm_head", "role") == "head"
    assert found("llava").data["towers"]["language"] == ["model.language_model"]
    assert all(found(name).data["architecture"]["library_version"] for name in ("vit", "mixtral", "gpt_neox", "llava"))


@pytest.mark.parametrize(
    ("name", "role"), [("dbrx", "attention."), ("llama4", "expert."), ("autoformer", "attention.")]
)
def test_what_does_not_build_from_a_bare_configuration_is_helped(name, role):
    """A bare dbrx lacks rope_theta, autoformer prediction_length: the smallest fix makes them build (edge case 40)."""
    assert found(name).with_role(role)


def test_what_cannot_be_built_says_why():
    """layoutlmv2 needs detectron2: one line that names it (edge case 40)."""
    with pytest.raises(LoradarError, match="detectron2") as caught:
        scan("layoutlmv2")
    assert "\n" not in caught.value.message


def test_thousands_of_modules_are_no_trouble():
    """nllb-moe: over four thousand modules, on meta, without weights and without a network (edge case 41)."""
    seen = Found("nllb-moe", method="names")
    assert len(seen.scan.module_paths) > 4000
    assert seen.count("attention.query") == 12 + 2 * 12


def test_a_hub_reference_runs_no_code(monkeypatch):
    """A hub repository is read by its header, never executed (edge case 42); offline, nothing is asked for."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubFailed, match="is not in the cache, and HF_HUB_OFFLINE is set"):
        scan("hub:someone/remote-code")


def test_names_alone_never_claim_to_have_seen():
    """Where nothing was run, nothing is called, bypassed or known by dataflow (edge case 42)."""
    seen = Found("llama", method="names")
    assert seen.data["method"] == "names"
    assert {layer["called"] for layer in seen.data["layers"]} == {None}
    assert {item["by"] for layer in seen.data["layers"] for item in layer["evidence"]} <= {"names", "structure"}


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
SPARSE = {
    "hunyuan_v1_moe": ({"intermediate_size": 48, "num_experts": 1, "moe_topk": 1}, {"mlp.gate.wg"}),
    "longcat_flash": (
        {"num_hidden_layers": 4, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24, "n_routed_experts": 4}
        | {"zero_expert_num": 2, "moe_topk": 2, "q_lora_rank": 8, "kv_lora_rank": 8}
        | {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8},
        {"mlp.router.classifier"},
    ),
    "zaya": (
        {"num_experts": 4, "moe_intermediate_size": 24, "router_hidden_size": 16},
        {"mlp.gate.down_proj", "mlp.gate.router_mlp.fc1", "mlp.gate.router_mlp.fc2", "mlp.gate.router_mlp.out_proj"},
    ),
}


@pytest.mark.parametrize("name", SPARSE)
def test_experts_are_known_whatever_their_number(name):
    """One expert, stacks with rows for experts that compute nothing, a router that may choose none."""
    settings, routers = SPARSE[name]
    config = CONFIG_MAPPING[name](vocab_size=64, **(SMALL | settings))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = scan(model).layers
    inside = {layer.path.partition("layers.1.")[2]: layer for layer in layers if ".layers.1." in layer.path}
    experts = {path: x.role for path, x in inside.items() if ".experts." in path}
    assert experts == {"mlp.experts.gate_up_proj": "expert.gate_up", "mlp.experts.down_proj": "expert.down"}
    assert {path for path, x in inside.items() if x.role == "moe.router"} == routers
    assert {inside[path].evidence[0].by for path in (*experts, *routers)} == {"dataflow"}


def test_the_last_step_of_a_tower_to_another_width_is_a_projector():
    """gemma4's audio tower ends in one layer to the width that the projector behind it reads."""
    layers = {layer.path: layer for layer in found("gemma4 with towers").scan.layers}
    layer = next(x for path, x in layers.items() if path.endswith("audio_tower.output_proj"))
    assert (layer.role, layer.tower) == ("projector", "projector")
