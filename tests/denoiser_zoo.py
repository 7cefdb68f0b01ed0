"""Small denoisers of diffusers and text encoders of transformers, with every part that the large ones have."""

import warnings
from types import SimpleNamespace

import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
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


def _chroma():
    sizes = {"in_channels": 4, "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 16}
    sizes |= {"axes_dims_rope": (2, 2, 4), "approximator_num_channels": 8, "approximator_hidden_dim": 16}
    return {"transformer": ChromaTransformer2DModel(**HEADS, **sizes)}


def _flux2():
    sizes = {"in_channels": 4, "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 16}
    sizes |= {"timestep_guidance_channels": 8, "axes_dims_rope": (2, 2, 2, 2)}
    return {"transformer": Flux2Transformer2DModel(**HEADS, **sizes)}


def _hunyuan():
    sizes = {"in_channels": 4, "out_channels": 4, "num_layers": 2, "num_single_layers": 2, "text_embed_dim": 16}
    sizes |= {"pooled_projection_dim": 16, "rope_axes_dim": (2, 2, 4)}
    return {"transformer": HunyuanVideoTransformer3DModel(**HEADS, **sizes)}


def _lumina2():
    """Of the width that diffusers' own converter is for."""
    sizes = {"num_layers": 1, "num_refiner_layers": 1, "cap_feat_dim": 16, "multiple_of": 8}
    return {"transformer": Lumina2Transformer2DModel(**sizes, ffn_dim_multiplier=0.01)}


def _zimage():
    sizes = {"in_channels": 4, "dim": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 16}
    return {"transformer": ZImageTransformer2DModel(**sizes, axes_dims=[2, 2, 4])}


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
    "chroma": _chroma,
    "flux2": _flux2,
    "hunyuan": _hunyuan,
    "lumina2": _lumina2,
    "zimage": _zimage,
}


def pipeline(name):
    """Return the models of a pipeline, on meta."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*FluxPosEmbed", category=FutureWarning)  # diffusers' own use of it
        return SimpleNamespace(components=MAKERS[name]())
