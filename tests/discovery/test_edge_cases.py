"""Edge cases of real architectures, rows 1 to 14: what holds for all, kinds, names, fused layers, experts.

Every docstring names its exhibit and its row in the list of edge cases. Rows are asserted as far as a scan goes: what
only an injected adapter can show (liveness) or a registry can hold (renames between versions) is proved elsewhere.
"""

import re

import pytest
from edge_zoo import PRESETS, found

NEVER = ("moe.router", "head", "norm", "embedding.", "projector", "mixer.state", "conv.depthwise")
MOE = ["qwen3_moe", "gpt_oss", "llama4", "nemotron_h", "qwen2_moe", "qwen3_next", "deepseek_v3", "afmoe", "phimoe"]
EXHIBITS = [
    *["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "bert", "roberta", "modernbert", "phi3", "mpt"],
    *["timm:vit_tiny_patch16_224", "timm:maxvit_tiny_tf_224", "timm:convnext_atto", "timm:hiera_tiny_224"],
    *["qwen2_vl", "parakeet_ctc", "internvl", "qwen3_omni_moe_thinker", "blip-2", "blip-2 on t5", "gpt_neox", "bloom"],
    *["falcon", "codegen", "deberta", *MOE, "gemma3n", "d_fine", "mamba", "jamba", "mamba2", "bamba", "zamba2"],
    *["granitemoehybrid", "falcon_h1", "siglip", "mask2former", "layoutlmv3", "detr with masks", "wavlm", "hubert"],
    *["gemma4 with towers", "gemma4 reusing k", "qwen3_5_text", "gemma3", "llava", "albert", "electra", "mobilebert"],
    *["reformer", "t5", "whisper", "bart", "distilbert", "deberta-v2", "rwkv", "fastspeech2_conformer"],
    *[
        "deformable_detr",
        "timm:vit_base_patch16_siglip_224",
        "timm:resnet18",
        "timm:efficientnet_b0",
        "roberta classifier",
    ],
]


# --- what holds for every exhibit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXHIBITS)
def test_presets_hit_exactly_what_they_say(name):
    """PEFT's rule over the module paths finds as many layers as were counted, all of them layers (edge cases 3, 4)."""
    seen = found(name)
    paths = {layer.path for layer in seen.scan.layers}
    for proposal in seen.scan.proposals:
        hit = seen.hits_of(proposal.spec)
        assert hit <= paths
        assert len(hit) == proposal.matched


@pytest.mark.parametrize("name", EXHIBITS)
def test_no_preset_holds_what_must_be_left_alone(name):
    """No head, router, embedding, norm or projector is ever proposed (edge cases 13, 22, 26, 28)."""
    seen = found(name)
    layers = {layer["path"]: layer for layer in seen.data["layers"]}
    hit = [layers[path] for preset in PRESETS for path in seen.hits(preset)]
    assert [layer for layer in hit if layer["role"].startswith(NEVER)] == []
    assert [layer for layer in hit if layer["called"] is False or layer["bypassed"]] == []
    assert not [layer for layer in hit if layer["tower"] == "projector"]


@pytest.mark.parametrize("name", EXHIBITS)
def test_no_target_is_a_bare_digit(name):
    """``qwen3_omni_moe_thinker`` has layers named ``0``; as a target that would hit whole blocks (edge case 5)."""
    for proposal in found(name).scan.proposals:
        targets = proposal.spec.target_modules or ()
        if isinstance(targets, str):
            assert not re.fullmatch(targets, "anything.0")
            assert not re.fullmatch(targets, "0")
        else:
            assert not [target for target in targets if target.isdecimal()]


@pytest.mark.parametrize("name", EXHIBITS)
def test_targets_match_whole_segments(name):
    """``up_proj`` is no ``gate_up_proj``, ``k_proj`` no ``relative_k_proj``, ``proj`` no Dropout (edge case 4)."""
    for proposal in found(name).scan.proposals:
        regex = proposal.spec.target_modules
        for path in found(name).hits_of(proposal.spec) if isinstance(regex, str) else ():
            parent, _, leaf = path.rpartition(".")
            assert not re.fullmatch(regex, f"{parent}.x_{leaf}")
            assert not re.fullmatch(regex, f"{path}_drop")


@pytest.mark.parametrize("name", EXHIBITS)
def test_experts_are_proposed_whole_or_not_at_all(name):
    """``qwen3_moe``: PEFT refuses ``gate`` without ``up`` of one fused parameter (edge case 14)."""
    seen = found(name)
    holders = {layer.path.rpartition(".")[0] for layer in seen.experts}
    for preset in PRESETS:
        hit = seen.hits(preset)
        for holder in holders:
            own = {layer.path for layer in seen.experts if layer.path.rpartition(".")[0] == holder}
            assert not own & hit or own <= hit


@pytest.mark.parametrize("name", EXHIBITS)
def test_every_exhibit_is_traced(name):
    """The verdicts below rest on dataflow, and say so; fastspeech2's convolutions over three positions do not."""
    seen = found(name)
    assert seen.data["method"] == "dataflow"
    spoken = [layer for layer in seen.data["layers"] if layer["role"].startswith(("attention.", "mlp.", "expert."))]
    by_flow = [layer for layer in spoken if any(item["by"] == "dataflow" for item in layer["evidence"])]
    spoken = [layer for layer in spoken if layer["kind"] != "conv1d" or max(layer["shape"][2:]) == 1]
    assert not spoken or len(by_flow) >= 0.9 * len(spoken)


# --- kinds, leaves and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "gpt-sw3", "openai-gpt", "imagegpt", "decision_transformer"])
def test_conv1d_is_a_transposed_linear(name):
    """gpt2: c_attn is a Conv1D that stores (in, out), and writes three times what it reads (edge case 1)."""
    for layer in found(name).layers("attn.c_attn"):
        assert (layer["kind"], layer["role"]) == ("transposed_linear", "attention.qkv")
        assert layer["shape"] == [layer["in_features"], layer["out_features"]]
        assert layer["out_features"] == 3 * layer["in_features"]


def test_transposed_and_plain_linears_live_side_by_side():
    """clvp: c_fc is a Conv1D, the q_proj beside it a Linear, so the layout is a fact of each layer (edge case 1)."""
    kinds = {
        tail: found("clvp").one(tail, "kind") for tail in ("decoder.layers.*.mlp.c_fc", "decoder.layers.*.attn.q_proj")
    }
    assert [*kinds.values()] == ["transposed_linear", "linear"]


@pytest.mark.parametrize(
    ("name", "attention", "mlp"),
    [
        ("gpt2", "attn.c_proj", "mlp.c_proj"),
        ("bert", "attention.output.dense", "*.output.dense"),
        ("roberta", "attention.output.dense", "*.output.dense"),
        ("modernbert", "attn.Wo", "mlp.Wo"),
    ],
)
def test_the_same_leaf_twice_in_a_block_is_told_apart(name, attention, mlp):
    """gpt2, bert, modernbert: the attention's and the feed-forward network's layer share their name (edge case 2)."""
    seen = found(name)
    assert seen.roles(attention, mlp) == {attention: "attention.output", mlp: "mlp.down"}
    assert not any(path.endswith(mlp.replace("*", "0")) for path in seen.hits("attention"))
    assert seen.hits("attention").isdisjoint(seen.hits("mlp"))


def test_a_pooler_is_not_hit_by_the_name_it_shares():
    """bert: pooler.dense shares its leaf with three layers of every block (edge case 2)."""
    assert "pooler.dense" in found("bert with pooler").by_pattern
    assert "pooler.dense" not in found("bert with pooler").proposed()


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "beit_base_patch16_224", "hiera_tiny_224"]
)
def test_a_convolution_that_makes_patches_is_no_projection(name):
    """timm: proj is the Conv2d that makes patches and the Linear that leaves attention (edge case 3)."""
    seen = found(f"timm:{name}")
    assert (seen.one("patch_embed.proj", "kind"), seen.one("patch_embed.proj", "role")) == ("conv2d", "embedding.patch")
    assert (seen.one("attn.proj", "kind"), seen.one("attn.proj", "role")) == ("linear", "attention.output")


def test_a_leaf_may_be_a_linear_here_and_a_convolution_there():
    """maxvit_tiny_tf_224: fc1 and fc2 are linears of the mlp and convolutions of the squeeze gate (edge case 3)."""
    seen = found("timm:maxvit_tiny_tf_224")
    assert (seen.one("se.fc1", "kind"), seen.one("attn_block.mlp.fc1", "kind")) == ("conv2d", "linear")
    assert seen.hit_patterns("mlp") == {
        f"stages.*.blocks.*.{block}.mlp.{leaf}" for block in ("attn_block", "attn_grid") for leaf in ("fc1", "fc2")
    }


@pytest.mark.parametrize("name", ["convnext_atto_rms", "resnetv2_50d_frn"])
def test_a_norm_that_averages_the_image_pools_nothing(name):
    """What a norm divides by its own average still has every position, so the convolutions behind it are proposed."""
    seen = found(f"timm:{name}")
    assert {"linear", "conv2d"} & {
        layer["kind"] for layer in seen.data["layers"] if layer["path"] in seen.hits("default")
    }


def test_a_patch_convolution_may_have_three_dimensions():
    """qwen2_vl: patch_embed.proj is a Conv3d, attn.proj a Linear (edge case 3; ms-swift#2640)."""
    seen = found("qwen2_vl")
    assert (seen.one("patch_embed.proj", "kind"), seen.one("patch_embed.proj", "role")) == ("conv3d", "embedding.patch")
    assert seen.one("attn.proj", "role") == "attention.output"


def test_a_relative_key_is_not_hit_as_a_key():
    """parakeet_ctc: k_proj would hit relative_k_proj if it were not anchored (edge case 4)."""
    targets = found("parakeet_ctc").scan.propose(preset="attention").spec.target_modules
    assert "k_proj" in targets
    assert found("parakeet_ctc").hit_patterns("default") == {
        f"encoder.layers.*.self_attn.{leaf}" for leaf in ("q_proj", "v_proj")
    }


# --- fused projections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("gpt2", "attn.c_attn"),
        ("phi3", "self_attn.qkv_proj"),
        ("modernbert", "attn.Wqkv"),
        ("mpt", "attn.Wqkv"),
        ("timm:vit_tiny_patch16_224", "attn.qkv"),
        ("blip-2", "vision_model.encoder.layers.*.self_attn.qkv"),
    ],
)
def test_equal_thirds_are_told(name, tail):
    """modernbert, mpt, timm, blip-2, and phi3 with as many key heads as query heads: q, k, v in a row (edge case 6)."""
    assert (found(name).one(tail, "role"), found(name).one(tail, "layout")) == ("attention.qkv", "thirds")


@pytest.mark.parametrize(
    ("name", "tail"), [("phi3 with grouped heads", "self_attn.qkv_proj"), ("falcon", "self_attention.query_key_value")]
)
def test_unequal_parts_are_told(name, tail):
    """phi3 with grouped heads and falcon with one key head: q, then smaller k and v (edge case 6)."""
    assert (found(name).one(tail, "role"), found(name).one(tail, "layout")) == ("attention.qkv", "unequal")


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("gpt_neox", "attention.query_key_value"),
        ("bloom", "self_attention.query_key_value"),
        ("falcon with many heads", "self_attention.query_key_value"),
        ("falcon with groups", "self_attention.query_key_value"),
        ("codegen", "attn.qkv_proj"),
        ("deberta", "attention.self.in_proj"),
    ],
)
def test_interleaved_heads_are_told(name, tail):
    """gpt_neox, bloom, falcon (heads, 3, size), codegen (4 blocks), deberta: never cut in thirds (edge case 7)."""
    assert (found(name).one(tail, "role"), found(name).one(tail, "layout")) == ("attention.qkv", "interleaved")


# --- experts and routers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "role"),
    [
        ("phi3", "linear", "mlp.gate_up"),
        ("glm4", "linear", "mlp.gate_up"),
        ("mixtral", "expert_parameter", "expert.gate_up"),
        ("qwen3_moe", "expert_parameter", "expert.gate_up"),
    ],
)
def test_gate_up_is_a_linear_here_and_a_parameter_there(name, kind, role):
    """phi3 and glm4 have a Linear gate_up_proj, mixtral and qwen3_moe a 3-D parameter of that name (edge case 8)."""
    assert (found(name).one("gate_up_proj", "kind"), found(name).one("gate_up_proj", "role")) == (kind, role)


@pytest.mark.parametrize(
    ("name", "shape", "layout"),
    [
        ("qwen3_moe", (128, 1536, 2048), "out_in"),
        ("gpt_oss", (128, 2880, 5760), "in_out"),
        ("llama4_text", (16, 5120, 16384), "in_out"),
    ],
)
def test_experts_say_which_way_they_lie(name, shape, layout):
    """qwen3_moe stores (experts, out, in), gpt_oss and llama4 (experts, in, out) (edge case 9)."""
    seen = found(name)
    assert seen.one("experts.gate_up_proj", "shape") == shape
    assert seen.all("experts.gate_up_proj", "layout") | seen.all("experts.down_proj", "layout") == {layout}


def test_experts_without_a_gate_are_found():
    """nemotron_h: experts stand under mixer and have up and down only (edge case 10; trl#6866)."""
    seen = found("nemotron_h")
    assert seen.roles("mixer.experts.up_proj", "mixer.experts.down_proj") == {
        "mixer.experts.up_proj": "expert.up",
        "mixer.experts.down_proj": "expert.down",
    }
    assert not seen.with_role("expert.gate", "mlp.gate")
    assert {"model.layers.*.mixer.experts.up_proj", "model.layers.*.mixer.up_proj"} <= seen.hit_patterns("mlp")


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("qwen2_moe", "shared_expert"),
        ("qwen3_next", "shared_expert"),
        ("deepseek_v3", "shared_experts"),
        ("llama4", "shared_expert"),
    ],
)
def test_shared_and_routed_experts_are_two_slots(name, shared):
    """qwen2_moe and others: down_proj is a Linear of the shared expert and a parameter of the routed (edge case 11)."""
    seen = found(name)
    assert seen.one(f"{shared}.down_proj", "role") == "mlp.down"
    assert seen.one("experts.down_proj", "role") == "expert.down"
    tails = (f"{shared}.down_proj", ".experts.down_proj", ".experts.gate_up_proj")
    assert all(any(p.endswith(tail) for p in seen.hit_patterns("all-linear")) for tail in tails)


def test_dense_layers_before_the_experts_are_counted_apart():
    """deepseek_v3: three dense layers, then 58 with experts; both are covered (edge case 12)."""
    seen = found("deepseek_v3")
    assert len(seen.layers("layers.*.mlp.gate_proj")) == 3
    assert len(seen.layers("mlp.experts.gate_up_proj")) == 58
    assert {"model.layers.*.mlp.gate_proj", "model.layers.*.mlp.experts.gate_up_proj"} <= seen.hit_patterns("mlp")


@pytest.mark.parametrize(
    ("name", "tail", "kind"),
    [
        ("qwen3_moe", "mlp.gate", "other"),
        ("mixtral", "mlp.gate", "other"),
        ("deepseek_v3", "mlp.gate", "other"),
        ("nemotron_h", "mixer.gate", "other"),
        ("gpt_oss", "mlp.router", "other"),
        ("afmoe", "mlp.router.gate", "linear"),
        ("phimoe", "mlp.router", "linear"),
        ("llama4", "feed_forward.router", "linear"),
        ("qwen2_moe", "mlp.shared_expert_gate", "linear"),
        ("qwen3_next", "mlp.shared_expert_gate", "linear"),
    ],
)
def test_routers_come_in_three_shapes(name, tail, kind):
    """A bare parameter, a Linear or its subclass, a scalar gate: all are routers, none is proposed (edge case 13)."""
    seen = found(name)
    assert (seen.one(tail, "role"), seen.one(tail, "kind")) == ("moe.router", kind)
    assert not [pattern for pattern in seen.proposed() if pattern.endswith(f".{tail}")]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("qwen2_moe", "shared_expert.gate_proj"),
        ("afmoe", "mlp.gate_proj"),
        ("gemma3n", "per_layer_input_gate"),
        ("gemma4", "per_layer_input_gate"),
        ("d_fine", "gateway.gate"),
    ],
)
def test_a_gate_is_not_a_router(name, tail):
    """gate_proj gates an mlp, gemma3n and d_fine have gates that route nothing (edge case 13)."""
    assert found(name).one(tail, "role") != "moe.router"
