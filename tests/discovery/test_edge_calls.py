"""Edge cases of real architectures, rows 15 to 21: layers that are not run, hybrids, variants of attention.

Every docstring names its exhibit and its row in the list of edge cases. Rows are asserted as far as a scan goes: what
only an injected adapter can show (liveness) or a registry can hold (renames between versions) is proved elsewhere.
"""

import re

import pytest
import torch
from edge_zoo import PRESETS, Found, Stack, found, source_line
from torch import nn

# --- layers that are there and not run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tail"), [("mamba", "mixer.dt_proj"), ("falcon_mamba", "mixer.dt_proj"), ("jamba", "mamba.dt_proj")]
)
def test_a_state_projection_is_bypassed(name, tail):
    """mamba, falcon_mamba, jamba: the weight of dt_proj is read, the layer never called (edge case 15)."""
    seen = found(name)
    assert seen.all(tail, "called") == {False}
    where = seen.one(tail, "bypassed")
    assert where.startswith(f"modeling_{name}.py:")
    assert "dt_proj" in source_line(name, where)
    assert not [pattern for pattern in seen.proposed() if pattern.endswith("dt_proj")]


@pytest.mark.parametrize(
    "name", ["mamba2", "bamba", "zamba2", "granitemoehybrid", "falcon_h1", "nemotron_h", "mamba", "falcon_mamba"]
)
def test_mixers_are_no_attention(name):
    """mamba2 and its kin: in_proj and out_proj belong to a mixer and run without a kernel (edge case 15)."""
    seen = found(name)
    mixer = "mixer" if name in ("mamba", "falcon_mamba", "mamba2", "nemotron_h") else "mamba"
    assert seen.roles(f"{mixer}.in_proj", f"{mixer}.out_proj") == {
        f"{mixer}.in_proj": "mixer.input",
        f"{mixer}.out_proj": "mixer.output",
    }
    assert seen.all(f"{mixer}.out_proj", "called") == {True}
    assert seen.one(f"{mixer}.conv1d", "role") == "mixer.state"
    assert not any(f"{mixer}.in_proj" in pattern for pattern in seen.with_role("attention."))


@pytest.mark.parametrize("name", ["mamba", "mamba2", "bamba", "granitemoehybrid"])
def test_a_layer_some_path_of_the_code_reads_directly_says_so(name):
    """mamba2 and its kin: a fused kernel reads the weight of out_proj where one is installed (edge case 15)."""
    mixer = "mixer" if name.startswith("mamba") else "mamba"
    seen = found(name)
    kernels = seen.all(f"{mixer}.out_proj", "kernel")
    assert len(kernels) == 1
    assert re.fullmatch(rf"mamba2?_\w+ at modeling_{name}.py:\d+", kernels.pop())
    assert not [pattern for pattern in seen.proposed() if pattern.endswith("out_proj") and mixer in pattern]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("siglip", "vision_model.head.attention"),
        ("siglip2", "vision_model.head.attention"),
        ("mask2former", "decoder.layers.*.cross_attn"),
        ("oneformer", "decoder.layers.*.self_attn"),
        ("aria", "cross_attn.multihead_attn"),
        ("phi4_multimodal", "img_processor.head.attention"),
    ],
)
def test_the_output_of_a_multihead_attention_is_bypassed(name, tail):
    """In siglip and others out_proj of nn.MultiheadAttention is a Linear and never called (edge case 16)."""
    seen = found(name)
    heads = [layer for layer in seen.layers(tail) if layer["kind"] == "multihead_attention"]
    assert heads
    assert {layer["role"] for layer in heads} == {"attention.qkv"}
    inside = {f"{layer['path']}.out_proj" for layer in heads}
    bypassed = {layer["path"]: layer["bypassed"] for layer in seen.data["layers"] if layer["path"] in inside}
    assert set(bypassed) == inside
    assert all(bypassed.values())
    assert not inside & {path for preset in PRESETS for path in seen.hits(preset)}


def test_an_encoder_layer_of_torch_is_traced_through():
    """nn.TransformerEncoderLayer: linears and attention are proposed, the attention's parts are not (edge case 16)."""
    model = Stack(lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True))
    seen = Found(model, example_inputs=(torch.zeros(1, 3, 16),))
    assert seen.roles("linear1", "linear2") == {"linear1": "mlp.up", "linear2": "mlp.down"}
    assert seen.hit_patterns("all-linear") == {"blocks.*.linear1", "blocks.*.linear2", "blocks.*.self_attn"}


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("layoutlmv3", "encoder.rel_pos_bias"),
        ("layoutlmv3", "encoder.rel_pos_x_bias"),
        ("layoutlmv3", "encoder.rel_pos_y_bias"),
        ("detr with masks", "bbox_attention.k_proj"),
        ("wav2vec2 for speakers", "tdnn.*.kernel"),
        ("mobilebert", "cls.predictions.dense"),
    ],
)
def test_a_linear_that_is_only_a_table_is_no_target(name, tail):
    """layoutlmv3, detr's mask head, wav2vec2's TDNN, mobilebert: the weight is read, not the layer (edge case 16b)."""
    seen = found(name)
    assert seen.all(tail, "called") == {False}
    assert all(re.fullmatch(r"modeling_\w+\.py:\d+", where) for where in seen.all(tail, "bypassed"))
    assert not [pattern for pattern in seen.proposed() if pattern.endswith(tail)]


def test_a_projection_that_is_both_query_and_key_is_told():
    """reformer: LSH attention asks and answers with one layer, local attention with two (edge case 16b)."""
    seen = found("reformer")
    assert seen.one("self_attention.query_key", "role") in ("attention.query", "attention.key")
    assert seen.one("self_attention.query", "role") == "attention.query"
    assert seen.one("self_attention.value", "role") == "attention.value"


@pytest.mark.parametrize("leaf", ["q_proj", "k_proj", "v_proj", "out_proj"])
def test_attention_by_a_function_bypasses_its_layers(leaf):
    """wavlm: F.multi_head_attention_forward reads the weights of all four (edge case 17)."""
    seen = found("wavlm")
    where = seen.one(f"attention.{leaf}", "bypassed")
    assert seen.all(f"attention.{leaf}", "called") == {False}
    assert "multi_head_attention_forward" in source_line("wavlm", where)
    assert not [pattern for pattern in seen.proposed() if pattern.endswith(f"attention.{leaf}")]


def test_roles_of_bypassed_attention_are_known_all_the_same():
    """wavlm: what the function is given tells query, key, value and output; the mlp is live (edge case 17)."""
    seen = found("wavlm")
    roles = seen.roles("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj")
    assert [*roles.values()] == [f"attention.{part}" for part in ("query", "key", "value", "output")]
    assert seen.all("feed_forward.intermediate_dense", "called") == {True}
    assert {p.rpartition(".")[2] for p in seen.hit_patterns("mlp")} == {"intermediate_dense", "output_dense"}


def test_the_same_names_may_be_alive_elsewhere():
    """hubert: the names of wavlm, and every layer is called (edge case 17)."""
    for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
        assert found("hubert").one(f"attention.{leaf}", "called") is True
        assert found("hubert").one(f"attention.{leaf}", "bypassed") is None
    assert found("hubert").hit_patterns("default") == {
        f"hubert.encoder.layers.*.attention.{leaf}" for leaf in ("q_proj", "v_proj")
    }


def test_a_wrapped_linear_is_found_inside():
    """gemma4 with towers: Gemma4ClippableLinear holds the Linear to adapt (edge case 18)."""
    seen = found("gemma4 with towers")
    assert seen.one("vision_tower.encoder.layers.*.self_attn.q_proj.linear", "role") == "attention.query"
    assert seen.one("vision_tower.encoder.layers.*.mlp.gate_proj.linear", "role") == "mlp.gate"
    assert seen.one("audio_tower.layers.*.self_attn.v_proj.linear", "role") == "attention.value"
    assert seen.one("vision_tower.encoder.layers.*.self_attn.q_proj.linear", "tower") == "vision"
    assert seen.one("audio_tower.layers.*.self_attn.v_proj.linear", "tower") == "audio"


# --- hybrids and variants -------------------------------------------------------------------------------------------


def test_a_slot_may_be_missing_on_some_layers():
    """gemma4 reusing k: five global layers have no v_proj, their k_proj says it is both (edge case 19; peft#3658)."""
    seen = found("gemma4 reusing k")
    keys = seen.layers("language_model.layers.*.self_attn.k_proj")
    assert len(seen.layers("language_model.layers.*.self_attn.v_proj")) == 25
    assert {layer["role"] for layer in keys} == {"attention.key"}
    assert sum("key and value operand" in layer["evidence"][0]["says"] for layer in keys) == 5


def test_layers_of_two_kinds_are_counted_by_kind():
    """qwen3_next: 36 layers of linear attention and 12 of attention; nemotron_h: one of each (edge case 19)."""
    seen = found("qwen3_next")
    assert (seen.count("attention.query"), len(seen.layers("linear_attn.in_proj_qkvz"))) == (12, 36)
    assert len(found("nemotron_h").layers("mixer.q_proj")) == found("nemotron_h").count("attention.query") == 1


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("qwen3_next", ("in_proj_qkvz", "in_proj_ba")),
        ("qwen3_5_text", ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")),
    ],
)
def test_linear_attention_has_inputs_an_output_and_a_state(name, leaves):
    """qwen3_next and qwen3_5: in_proj_* enter, out_proj leaves, the depthwise conv1d is state (edge case 20)."""
    seen = found(name)
    assert set(seen.roles(*(f"linear_attn.{leaf}" for leaf in leaves)).values()) == {"mixer.input"}
    assert seen.roles("linear_attn.out_proj", "linear_attn.conv1d") == {
        "linear_attn.out_proj": "mixer.output",
        "linear_attn.conv1d": "mixer.state",
    }
    hit = {p.rpartition(".")[2] for p in seen.hit_patterns("all-linear") if "linear_attn" in p}
    assert hit == {*leaves, "out_proj"}


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3"])
def test_latent_attention_has_slots_of_its_own(name):
    """deepseek_v2 and v3: two layers lead down to the latents, two lead up from them (edge case 21)."""
    assert found(name).roles("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "self_attn.o_proj") == {
        "q_a_proj": "attention.latent",
        "q_b_proj": "attention.query",
        "kv_a_proj_with_mqa": "attention.latent",
        "kv_b_proj": "attention.kv",
        "self_attn.o_proj": "attention.output",
    }


def test_latent_attention_may_have_a_plain_query():
    """deepseek_v2 lite: the query has no latent (edge case 21)."""
    seen = found("deepseek_v2 without q_a")
    assert seen.roles("self_attn.q_proj", "kv_a_proj_with_mqa", "kv_b_proj") == {
        "self_attn.q_proj": "attention.query",
        "kv_a_proj_with_mqa": "attention.latent",
        "kv_b_proj": "attention.kv",
    }
