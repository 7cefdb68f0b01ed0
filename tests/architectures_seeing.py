"""Tiny models of architectures that see, hear or paint: transformers' towers, timm's networks, diffusers' denoisers.

Every builder returns a ``Specimen``, as in ``zoo``.
"""

from typing import Any

import diffusers
import timm
import torch
import transformers as hf
from architectures import DECODER, ENCODER, OPT, ids
from torch import nn
from zoo import TOKENS, Specimen

SEEING = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
}
IMAGE_TOKEN = 59


def _pixels(size: int = 16) -> torch.Tensor:
    return torch.randn(2, 3, size, size)


def _ids_after_image() -> torch.Tensor:
    return torch.cat([torch.full((2, 4), IMAGE_TOKEN), ids().clamp(max=IMAGE_TOKEN - 1)], dim=1)


# --- transformers: one tower --------------------------------------------------------------------------------------


def wav2vec2() -> Specimen:
    """Return a wav2vec 2.0 classifier: convolutions on sound, one of them with a parametrised weight."""
    config = hf.Wav2Vec2Config(
        conv_dim=(8, 8),
        conv_stride=(4, 2),
        conv_kernel=(8, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        num_labels=3,
        **ENCODER,
    )
    model = hf.Wav2Vec2ForSequenceClassification(config).eval()
    return Specimen(model, {"input_values": torch.randn(2, 160)})


def whisper() -> Specimen:
    """Return a Whisper: plain convolutions before the encoder, cross-attention in the decoder."""
    config = hf.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=12,
        decoder_start_token_id=1,
        **TOKENS,
    )
    inputs = {"input_features": torch.randn(2, 8, 20), "decoder_input_ids": ids()}
    return Specimen(hf.WhisperForConditionalGeneration(config).eval(), inputs)


def siglip() -> Specimen:
    """Return a SigLIP vision tower: its pooling head is an ``nn.MultiheadAttention``."""
    return Specimen(hf.SiglipVisionModel(hf.SiglipVisionConfig(**SEEING)).eval(), {"pixel_values": _pixels()})


# --- transformers: several towers ---------------------------------------------------------------------------------


def clip() -> Specimen:
    """Return a CLIP: the same names in the text and the vision tower."""
    text = ENCODER | {"max_position_embeddings": 16}
    config = hf.CLIPConfig(text_config=text, vision_config=SEEING, projection_dim=8, logit_scale_init_value=0.0)
    return Specimen(hf.CLIPModel(config).eval(), {"input_ids": ids(), "pixel_values": _pixels()})


def llava() -> Specimen:
    """Return a LLaVA: a CLIP vision tower, a projector, a llama."""
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**SEEING),
        text_config=hf.LlamaConfig(**DECODER),
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-1,
    )
    model = hf.LlavaForConditionalGeneration(config).eval()
    return Specimen(model, {"input_ids": _ids_after_image(), "pixel_values": _pixels()})


def blip2() -> Specimen:
    """Return a BLIP-2: a vision tower, a Q-Former and an OPT."""
    config = hf.Blip2Config(
        vision_config=hf.Blip2VisionConfig(**SEEING),
        qformer_config=hf.Blip2QFormerConfig(encoder_hidden_size=16, **ENCODER),
        text_config=hf.OPTConfig(**OPT),
        num_query_tokens=4,
        image_token_index=IMAGE_TOKEN,
    )
    model = hf.Blip2ForConditionalGeneration(config).eval()
    return Specimen(model, {"pixel_values": _pixels(), "input_ids": _ids_after_image()})


# --- timm, diffusers, torch ---------------------------------------------------------------------------------------


def _timm(name: str, size: int, **options: Any) -> Specimen:
    model = timm.create_model(name, pretrained=False, num_classes=3, **options).eval()
    return Specimen(model, {"x": _pixels(size)})


def convnext() -> Specimen:
    """Return a timm ConvNeXt: depthwise convolutions, linears in the blocks."""
    return _timm("convnext_atto", 32, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), ls_init_value=1.0)


def timm_vit() -> Specimen:
    """Return a timm ViT: ``qkv`` fused, ``proj`` both a linear layer and the patch convolution."""
    return _timm("vit_tiny_patch16_224", 16, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)


def swin() -> Specimen:
    """Return a timm Swin: windows, and a reduction between its stages."""
    sizes = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
    return _timm("swin_tiny_patch4_window7_224", 16, **sizes)


def mobilenet() -> Specimen:
    """Return a timm MobileNetV3: 1x1 convolutions between depthwise ones."""
    return _timm("mobilenetv3_small_050", 32)


def unet() -> Specimen:
    """Return a diffusers UNet: residual convolutions and cross-attention."""
    model = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    inputs = {"sample": torch.randn(2, 4, 8, 8), "timestep": 3, "encoder_hidden_states": torch.randn(2, 5, 12)}
    return Specimen(model.eval(), inputs)


def dit() -> Specimen:
    """Return a diffusers DiT: transformer blocks with modulated norms."""
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, norm_num_groups=4
    )
    inputs = {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([1, 2]),
        "class_labels": torch.tensor([0, 1]),
    }
    return Specimen(model.eval(), inputs)


class Encoder(nn.Module):
    """Torch's own transformer encoder. Its fused path, which knows no SiLU, would read around adapters in eval."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, activation=nn.SiLU())
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return as many vectors as came in."""
        result: torch.Tensor = self.encoder(x)
        return result


def encoder() -> Specimen:
    """Return torch's encoder: two blocks with ``nn.MultiheadAttention``."""
    return Specimen(Encoder().eval(), {"x": torch.randn(2, 5, 16)})
