"""Static roles: one test per belief about structure, and the hard cases of real architectures."""

from functools import cache

import pytest
from discovery_zoo import ConvNet, Decoder, SparseDecoder
from scan_cache import scan
from torch import nn
from zoo import MLP


def roles(model):
    """Return the role of every layer by path."""
    return {layer.path: layer.role for layer in scan(model).layers}


def test_unknown_names_in_a_feed_forward_network_go_by_their_shape():
    """A layer that widens is up, one that narrows is down."""
    found = roles(Decoder())
    assert found["blocks.0.mlp.alpha"] == "mlp.up"
    assert found["blocks.0.mlp.beta"] == "mlp.down"


def test_attention_projections_go_by_their_names():
    """Query, key, value and output."""
    found = roles(Decoder())
    leaves = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert [found[f"blocks.2.attn.{leaf}"] for leaf in leaves] == [
        f"attention.{role}" for role in ("query", "key", "value", "output")
    ]


def test_the_last_layer_of_a_plain_module_is_its_head():
    """And no other one is."""
    found = roles(MLP())
    assert found["seq.4"] == "head"
    assert list(found.values()).count("head") == 1


def test_a_single_layer_is_no_head():
    """There would be nothing left to adapt."""
    assert roles(nn.Sequential(nn.Linear(4, 4), nn.ReLU())) == {"0": "other"}


def test_a_router_stands_beside_experts():
    """`gate` is a router there, and shared experts are no experts."""
    found = roles(SparseDecoder())
    assert found["layers.0.mlp.gate"] == "moe.router"
    assert found["layers.0.mlp.experts.gate_up_proj"] == "expert.gate_up"
    assert found["layers.0.mlp.experts.down_proj"] == "expert.down"
    assert found["layers.0.mlp.shared_experts.alpha"] == "mlp.up"


def test_convolutions_go_by_kernel_and_groups():
    """Depthwise, pointwise, patches; a squeeze gate is none of them."""
    found = roles(ConvNet())
    assert found["stem"] == "embedding.patch"
    assert found["blocks.0.depth"] == "conv.depthwise"
    assert found["blocks.0.point"] == "conv.pointwise"
    assert found["blocks.0.se.0"] == "other"


def test_multihead_attention_is_fused():
    """Torch's own encoder layer."""
    found = roles(
        nn.ModuleDict({"layers": nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16)]), "out": nn.Linear(8, 8)})
    )
    assert found["layers.0.self_attn"] == "attention.qkv"
    assert found["layers.0.linear1"] == "mlp.up"


# Each line: an architecture, a layer (index left out), its role. Rows of the project's list of hard cases.
HARD = [
    ("gpt2", "attn.c_attn", "attention.qkv"),
    ("gpt2", "attn.c_proj", "attention.output"),
    ("gpt2", "mlp.c_proj", "mlp.down"),
    ("bert", "attention.output.dense", "attention.output"),
    ("bert", "intermediate.dense", "mlp.up"),
    ("bert", "output.dense", "mlp.down"),
    ("bert", "cls.predictions.transform.dense", "head"),
    ("bert", "cls.predictions.decoder", "head"),
    ("roberta", "lm_head.dense", "head"),
    ("modernbert", "mlp.Wi", "mlp.gate_up"),
    ("modernbert", "attn.Wqkv", "attention.qkv"),
    ("modernbert", "mlp.Wo", "mlp.down"),
    ("modernbert", "attn.Wo", "attention.output"),
    ("modernbert", "head.dense", "head"),
    ("phi3", "mlp.gate_up_proj", "mlp.gate_up"),
    ("phi3", "self_attn.qkv_proj", "attention.qkv"),
    ("t5", "SelfAttention.q", "attention.query"),
    ("t5", "EncDecAttention.o", "attention.output"),
    ("t5", "DenseReluDense.wi", "mlp.up"),
    ("distilbert", "attention.q_lin", "attention.query"),
    ("distilbert", "ffn.lin1", "mlp.up"),
    ("mixtral", "mlp.gate", "moe.router"),
    ("mixtral", "mlp.experts.gate_up_proj", "expert.gate_up"),
    ("qwen2_moe", "mlp.shared_expert_gate", "moe.router"),
    ("qwen2_moe", "mlp.shared_expert.down_proj", "mlp.down"),
    ("nemotron_h", "mixer.experts.up_proj", "expert.up"),
    ("nemotron_h", "mixer.q_proj", "attention.query"),
    ("deepseek_v3", "self_attn.kv_a_proj_with_mqa", "attention.latent"),
    ("deepseek_v3", "self_attn.kv_b_proj", "attention.kv"),
    ("mamba", "mixer.in_proj", "mixer.input"),
    ("mamba", "mixer.dt_proj", "mixer.state"),
    ("qwen3_next", "linear_attn.in_proj_qkvz", "mixer.input"),
    ("qwen3_next", "linear_attn.out_proj", "mixer.output"),
    ("albert", "albert.encoder.embedding_hidden_mapping_in", "other"),
    ("gemma3n", "per_layer_input_gate", "other"),
    ("llava", "model.multi_modal_projector.linear_1", "projector"),
    ("vit", "vit.embeddings.patch_embeddings.projection", "embedding.patch"),
    ("vit", "classifier", "head"),
    ("whisper", "proj_out", "head"),
    ("whisper", "fc1", "mlp.up"),
    ("gpt_neox", "attention.query_key_value", "attention.qkv"),
    ("timm:vit_base_patch16_224", "patch_embed.proj", "embedding.patch"),
    ("timm:vit_base_patch16_224", "attn.proj", "attention.output"),
    ("timm:vit_base_patch16_224", "head", "head"),
    ("timm:poolformer_m36", "mlp.fc1", "mlp.up"),
    ("timm:poolformer_m36", "head.fc", "head"),
    ("timm:legacy_seresnet50", "conv1", "conv.pointwise"),
    ("timm:legacy_seresnet50", "se_module.fc1", "other"),
    ("timm:convnext_atto", "conv_dw", "conv.depthwise"),
]


scan_once = cache(scan)


@pytest.mark.parametrize(("name", "suffix", "role"), HARD)
def test_hard_cases(name, suffix, role):
    """Every layer of that name in the architecture has that role."""
    of = [layer.role for layer in scan_once(name).layers if layer.path == suffix or block_path(layer) == suffix]
    assert of
    assert set(of) == {role}


def block_path(layer):
    """Return a layer's path within its innermost block."""
    return layer.path.removeprefix(f"{layer.block}.") if layer.block else layer.path
