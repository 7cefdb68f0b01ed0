"""Small denoisers of diffusers and text encoders of transformers, with every part that the large ones have."""

from types import SimpleNamespace

import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    FluxTransformer2DModel,
    LTXVideoTransformer3DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

UNET = {"sample_size": 8, "norm_num_groups": 8, "layers_per_block": 1}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (16, 32),
    "attention_head_dim": 8,
}
XL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "attention_head_dim": 8,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
    "transformer_layers_per_block": (1, 2),
}
HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}


def clip(kind=CLIPTextModel):
    """A text encoder of CLIP."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    tokens = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return kind(CLIPTextConfig(**sizes, **tokens, projection_dim=16))


def t5():
    """A text encoder of T5."""
    sizes = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 64}
    return T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu"))


def _sd1():
    return {"unet": UNet2DConditionModel(**UNET, **CROSS, cross_attention_dim=24), "text_encoder": clip()}


def _sd2():
    linear = {"use_linear_projection": True, "cross_attention_dim": 1024}
    return {"unet": UNet2DConditionModel(**UNET, **CROSS, **linear), "text_encoder": clip()}


def _sdxl():
    texts = {"text_encoder": clip(), "text_encoder_2": clip(CLIPTextModelWithProjection)}
    return {"unet": UNet2DConditionModel(**UNET, **XL, cross_attention_dim=32), **texts}


def _flux():
    sizes = {"in_channels": 4, "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 16}
    sizes |= {"pooled_projection_dim": 16, "axes_dims_rope": (2, 2, 4), "guidance_embeds": True}
    return {"transformer": FluxTransformer2DModel(**HEADS, **sizes), "text_encoder": clip(), "text_encoder_2": t5()}


def _sd3():
    sizes = {"sample_size": 8, "num_layers": 2, "joint_attention_dim": 16, "caption_projection_dim": 16}
    sizes |= {
        "pooled_projection_dim": 16,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
        "pos_embed_max_size": 8,
    }
    texts = {"text_encoder": clip(CLIPTextModelWithProjection), "text_encoder_2": clip(CLIPTextModelWithProjection)}
    return {"transformer": SD3Transformer2DModel(**HEADS, **sizes), **texts, "text_encoder_3": t5()}


def _wan():
    sizes = {"text_dim": 16, "freq_dim": 8, "ffn_dim": 24, "num_layers": 2, "image_dim": 16, "added_kv_proj_dim": 16}
    return {"transformer": WanTransformer3DModel(**HEADS, **sizes)}


def _ltx():
    sizes = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 16, "num_layers": 2, "caption_channels": 16}
    return {"transformer": LTXVideoTransformer3DModel(**HEADS, **sizes)}


def _qwen():
    sizes = {
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "joint_attention_dim": 16,
        "axes_dims_rope": (2, 2, 4),
    }
    return {"transformer": QwenImageTransformer2DModel(**HEADS, **sizes)}


def _aura():
    sizes = {"sample_size": 8, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "joint_attention_dim": 16}
    sizes |= {"caption_projection_dim": 16, "pos_embed_max_size": 16}
    return {"transformer": AuraFlowTransformer2DModel(**HEADS, **sizes)}


def _pixart():
    sizes = {"sample_size": 128, "num_layers": 2, "cross_attention_dim": 16, "caption_channels": 16}
    return {"transformer": PixArtTransformer2DModel(**HEADS, **sizes, use_additional_conditions=True)}


MAKERS = {
    "sd1": _sd1,
    "sd2": _sd2,
    "sdxl": _sdxl,
    "flux": _flux,
    "sd3": _sd3,
    "wan": _wan,
    "ltx": _ltx,
    "qwen": _qwen,
    "aura": _aura,
    "pixart": _pixart,
}


def pipeline(name):
    """Return the models of a pipeline, on meta."""
    with torch.device("meta"):
        return SimpleNamespace(components=MAKERS[name]())
