"""Tiny models of language architectures, from their own configurations: every family with a layout of its own.

Every builder returns a ``Specimen``, as in ``zoo``, which holds gpt2, bert, llama, t5, vit and resnet.
"""

from typing import Any

import torch
import transformers as hf
from transformers.models.llama4 import Llama4ForCausalLM, Llama4TextConfig
from zoo import TOKENS, VOCABULARY, Specimen

DECODER = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    **TOKENS,
}
ENCODER = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, **TOKENS}
OPT = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "ffn_dim": 24,
    "word_embed_proj_dim": 16,
    "max_position_embeddings": 32,
    **TOKENS,
}


def ids(length: int = 7) -> torch.Tensor:
    """Return two sequences of ordinary tokens."""
    return torch.randint(3, VOCABULARY, (2, length))


def _text(kind: type, config: hf.PretrainedConfig, **more: torch.Tensor) -> Specimen:
    return Specimen(kind(config).eval(), {"input_ids": ids(), **more})


# --- mixtures of experts -----------------------------------------------------------------------------------------


def mixtral() -> Specimen:
    """Return a Mixtral: experts in parameters of three dimensions, [expert, out, in]."""
    config = hf.MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **DECODER)
    return _text(hf.MixtralForCausalLM, config)


def qwen3_moe() -> Specimen:
    """Return a Qwen3-MoE: fused experts, and a router that is no linear layer."""
    config = hf.Qwen3MoeConfig(moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2, **DECODER)
    return _text(hf.Qwen3MoeForCausalLM, config)


def gpt_oss() -> Specimen:
    """Return a gpt-oss: experts stored [expert, in, out], with biases, in a module that says so."""
    config = hf.GptOssConfig(num_local_experts=4, num_experts_per_tok=2, **DECODER)
    return _text(hf.GptOssForCausalLM, config)


def llama4() -> Specimen:
    """Return a text-only Llama 4: experts stored [expert, in, out] in a module that does not say so."""
    config = Llama4TextConfig(
        intermediate_size_mlp=32, num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=1, **DECODER
    )
    return _text(Llama4ForCausalLM, config)


def deepseek_v3() -> Specimen:
    """Return a DeepSeek-V3: low-rank attention, a dense layer, then experts beside a shared one."""
    config = hf.DeepseekV3Config(
        moe_intermediate_size=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        **(DECODER | {"num_key_value_heads": 2, "head_dim": 4}),
    )
    return _text(hf.DeepseekV3ForCausalLM, config)


def qwen2_moe() -> Specimen:
    """Return a Qwen2-MoE: a shared expert of linears beside the fused ones."""
    config = hf.Qwen2MoeConfig(
        moe_intermediate_size=12,
        shared_expert_intermediate_size=12,
        num_experts=4,
        num_experts_per_tok=2,
        **{name: value for name, value in DECODER.items() if name != "head_dim"},
    )
    return _text(hf.Qwen2MoeForCausalLM, config)


def qwen3_next() -> Specimen:
    """Return a Qwen3-Next: linear attention and full attention by turns, each with a mixture of experts."""
    config = hf.Qwen3NextConfig(
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        moe_intermediate_size=12,
        shared_expert_intermediate_size=12,
        num_experts=4,
        num_experts_per_tok=2,
        **DECODER,
    )
    return _text(hf.Qwen3NextForCausalLM, config)


# --- decoders ----------------------------------------------------------------------------------------------------


def falcon() -> Specimen:
    """Return a Falcon: query, key and value in one linear layer, attention and MLP side by side."""
    config = hf.FalconConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, **TOKENS)
    return _text(hf.FalconForCausalLM, config)


def gpt_neox() -> Specimen:
    """Return a GPT-NeoX: query, key and value interleaved by head."""
    return _text(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig(**ENCODER))


def bloom() -> Specimen:
    """Return a BLOOM: ALiBi, embeddings with a norm, tied to the head."""
    return _text(hf.BloomForCausalLM, hf.BloomConfig(n_layer=2, hidden_size=16, n_head=2, **TOKENS))


def opt() -> Specimen:
    """Return an OPT: biases everywhere."""
    return _text(hf.OPTForCausalLM, hf.OPTConfig(**OPT))


def phi3() -> Specimen:
    """Return a Phi-3: fused and unequal query, key and value; fused gate and up."""
    return _text(hf.Phi3ForCausalLM, hf.Phi3Config(**{k: v for k, v in DECODER.items() if k != "head_dim"}))


def gemma3() -> Specimen:
    """Return a Gemma 3 text model: norms on queries and keys, a sliding window."""
    return _text(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig(**DECODER))


def mamba() -> Specimen:
    """Return a Mamba: no attention; its convolution is depthwise and its head tied."""
    config = hf.MambaConfig(
        num_hidden_layers=2, hidden_size=16, state_size=4, time_step_rank=4, use_mambapy=False, **TOKENS
    )
    return _text(hf.MambaForCausalLM, config, use_cache=False)


def mamba2() -> Specimen:
    """Return a Mamba 2."""
    config = hf.Mamba2Config(
        num_hidden_layers=2, hidden_size=16, state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=4, **TOKENS
    )
    return _text(hf.Mamba2ForCausalLM, config, use_cache=False)


# --- encoders, and encoders with decoders ------------------------------------------------------------------------


def albert() -> Specimen:
    """Return an ALBERT: one block, called by every layer."""
    config = hf.AlbertConfig(embedding_size=8, num_labels=3, **ENCODER)
    return _text(hf.AlbertForSequenceClassification, config)


def distilbert() -> Specimen:
    """Return a DistilBERT: names of its own."""
    config = hf.DistilBertConfig(n_layers=2, dim=16, n_heads=2, hidden_dim=24, num_labels=3, **TOKENS)
    return _text(hf.DistilBertForSequenceClassification, config)


def deberta_v2() -> Specimen:
    """Return a DeBERTa-v2: attention whose position projections are the content ones."""
    config = hf.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], share_att_key=True, num_labels=3, **ENCODER
    )
    return _text(hf.DebertaV2ForSequenceClassification, config)


def modernbert() -> Specimen:
    """Return a ModernBERT: fused query, key and value, ``Wo`` twice in a block."""
    extra: dict[str, Any] = {"cls_token_id": 1, "sep_token_id": 2, "attn_implementation": "eager", "num_labels": 3}
    return _text(hf.ModernBertForSequenceClassification, hf.ModernBertConfig(**ENCODER, **extra))


def bart() -> Specimen:
    """Return a BART: cross-attention under the same names as self-attention."""
    config = hf.BartConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        **TOKENS,
    )
    return _text(hf.BartForConditionalGeneration, config, decoder_input_ids=ids())
