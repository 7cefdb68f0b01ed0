"""Small models of packages that loradar knows nothing of, with their attention and heads as read in the source.

The packages are those of the extra ``foreign``; a model whose package is not installed is skipped, except in CI.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Foreign:
    """A model of another package.

    Attributes:
        build: Builds it, small and with random weights.
        inputs: Makes the arguments of its forward.
        attention: Each layer of its attention that an adapter may go on, by path pattern, with its role.
        heads: The path patterns of the dense layers and convolutions of its heads.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    attention: dict[str, str] = field(default_factory=dict)
    heads: frozenset[str] = frozenset()


def of(package: str, name: str, *arguments: Any, **settings: Any) -> Callable[[], nn.Module]:
    """Return the builder of a class or function in a package."""
    return lambda: getattr(import_module(package), name)(*arguments, **settings)


def image(size: int = 32, channels: int = 3) -> tuple[torch.Tensor]:
    """Return two images."""
    return (torch.randn(2, channels, size, size),)


def tokens(length: int = 16) -> tuple[torch.Tensor]:
    """Return two rows of token ids."""
    return (torch.randint(0, 32, (2, length)),)


def numbers(*shape: int) -> Callable[[], tuple[torch.Tensor]]:
    """Return a function that makes one tensor of this shape."""
    return lambda: (torch.randn(*shape),)


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two rows of a table: two columns of categories, four of numbers."""
    return torch.zeros(2, 2, dtype=torch.long), torch.randn(2, 4)


def frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two rows of frames with their lengths."""
    return torch.randn(2, 9, 32), torch.tensor([9, 7])


def apart(stem: str, query: str, key: str, value: str, output: str) -> dict[str, str]:
    """Return the roles of four projections below a path."""
    roles = {query: "query", key: "key", value: "value", output: "output"}
    return {f"{stem}.{name}": f"attention.{role}" for name, role in roles.items()}


def fused(stem: str, output: str, qkv: str = "to_qkv") -> dict[str, str]:
    """Return the roles of one fused projection and an output."""
    return {f"{stem}.{qkv}": "attention.qkv", f"{stem}.{output}": "attention.output"}


def halved(stem: str, output: str, query: str = "to_q", kv: str = "to_kv") -> dict[str, str]:
    """Return the roles of a query, a projection that holds key and value, and an output."""
    roles = {query: "query", kv: "kv", output: "output"}
    return {f"{stem}.{name}": f"attention.{role}" for name, role in roles.items()}


def whole(*paths: str) -> dict[str, str]:
    """Return the roles of attentions that are adapted as a whole."""
    return dict.fromkeys(paths, "attention.qkv")


HEADS = {"heads": 2, "dim_head": 16}
VIT = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 32, "depth": 2, "mlp_dim": 48, **HEADS}
LONG = {key: value for key, value in VIT.items() if key not in ("image_size", "patch_size")}
DECODER = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}


def vit(module: str, name: str = "ViT", **settings: Any) -> Callable[[], nn.Module]:
    """Return the builder of a model of vit-pytorch."""
    return of(f"vit_pytorch.{module}", name, **{**VIT, **settings})


def x_text(kind: str, **settings: Any) -> Callable[[], nn.Module]:
    """Return the builder of a text model of x-transformers."""

    def build() -> nn.Module:
        x: Any = import_module("x_transformers")
        layers = getattr(x, kind)(**DECODER, **settings)
        model: nn.Module = x.TransformerWrapper(num_tokens=32, max_seq_len=16, attn_layers=layers)
        return model

    return build


def x_image() -> nn.Module:
    """Return a vision transformer of x-transformers."""
    x: Any = import_module("x_transformers")
    model: nn.Module = x.ViTransformerWrapper(
        image_size=32, patch_size=8, num_classes=5, attn_layers=x.Encoder(**DECODER)
    )
    return model


CLASSIFIER = frozenset({"classifier.*"})
TORCHVISION = {
    "vit": Foreign(
        of("torchvision.models", "VisionTransformer", 32, 8, 2, 2, 32, 48, num_classes=5),
        image,
        whole(*(f"encoder.layers.encoder_layer_{n}.self_attention" for n in range(2))),
        frozenset({"heads.head"}),
    ),
    # Its attention multiplies with the weights of its layers and never calls them.
    "swin": Foreign(
        of("torchvision.models", "SwinTransformer", [4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=5),
        image,
        {},
        frozenset({"head"}),
    ),
    "convnext": Foreign(of("torchvision.models", "convnext_tiny", num_classes=5), image, {}, CLASSIFIER),
    "resnet": Foreign(of("torchvision.models", "resnet18", num_classes=5), image, {}, frozenset({"fc"})),
    "mobilenet": Foreign(of("torchvision.models", "mobilenet_v3_small", num_classes=5), image, {}, CLASSIFIER),
}
TORCHAUDIO = {
    "conformer": Foreign(
        of("torchaudio.models", "Conformer", 32, 2, 48, 2, 7), frames, whole("conformer_layers.*.self_attn")
    ),
    "wav2vec2": Foreign(
        of(
            "torchaudio.models",
            "wav2vec2_model",
            extractor_mode="group_norm",
            extractor_conv_layer_config=[(16, 10, 5), (16, 3, 2)],
            extractor_conv_bias=False,
            encoder_embed_dim=32,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=8,
            encoder_pos_conv_groups=2,
            encoder_num_layers=2,
            encoder_num_heads=2,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=48,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=False,
            encoder_layer_drop=0.0,
            aux_num_out=5,
        ),
        numbers(2, 400),
        apart("encoder.transformer.layers.*.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
        frozenset({"aux"}),
    ),
    "emformer": Foreign(
        of("torchaudio.models", "Emformer", 32, 2, 48, 2, 4, right_context_length=1),
        lambda: (torch.randn(2, 9, 32), torch.tensor([8, 8])),
        halved("emformer_layers.*.attention", "out_proj", "emb_to_query", "emb_to_key_value"),
    ),
}
X_LAYERS = apart("attn_layers.layers.*.*", "to_q", "to_k", "to_v", "to_out")
X_TRANSFORMERS = {
    "decoder": Foreign(x_text("Decoder"), tokens, X_LAYERS, frozenset({"to_logits"})),
    "decoder with shared keys": Foreign(
        x_text("Decoder", attn_kv_heads=1, ff_glu=True, ff_swish=True, use_rmsnorm=True),
        tokens,
        X_LAYERS,
        frozenset({"to_logits"}),
    ),
    "encoder": Foreign(x_text("Encoder"), tokens, X_LAYERS, frozenset({"to_logits"})),
    "vit": Foreign(x_image, image, X_LAYERS, frozenset({"mlp_head"})),
}
TORCH = {
    "encoder": Foreign(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 48, batch_first=True), 2),
        numbers(2, 7, 32),
        whole("layers.*.self_attn"),
    )
}
BLOCK = "transformer.layers.*.*"
LAST, LINEAR = frozenset({"mlp_head.*"}), frozenset({"linear_head"})
VIT_PYTORCH = {
    "vit": Foreign(vit("vit"), image, fused(BLOCK, "to_out.*"), frozenset({"mlp_head"})),
    "simple": Foreign(vit("simple_vit", "SimpleViT"), image, fused(BLOCK, "to_out"), LINEAR),
    "deep": Foreign(vit("deepvit", "DeepViT"), image, fused(BLOCK, "to_out.*"), LAST),
    "cait": Foreign(
        vit("cait", "CaiT", cls_depth=1),
        image,
        halved("patch_transformer.layers.*.*.fn", "to_out.*") | halved("cls_transformer.layers.*.*.fn", "to_out.*"),
        LAST,
    ),
    "parallel": Foreign(vit("parallel_vit"), image, fused(f"{BLOCK}.fns.*", "to_out.*"), LAST),
    "small data": Foreign(vit("vit_for_small_dataset"), image, fused(BLOCK, "to_out.*"), LAST),
    "registers": Foreign(vit("simple_vit_with_register_tokens", "SimpleViT"), image, fused(BLOCK, "to_out"), LINEAR),
    "dropped patches": Foreign(
        vit("simple_vit_with_patch_dropout", "SimpleViT"), image, fused(BLOCK, "to_out"), LINEAR
    ),
    "patch dropout": Foreign(vit("vit_with_patch_dropout"), image, fused(BLOCK, "to_out.*"), LAST),
    "decorrelated": Foreign(vit("vit_with_decorr"), image, fused(BLOCK, "to_out.*"), frozenset({"mlp_head"})),
    "keel": Foreign(
        vit("vit_with_keel_post_ln"), image, fused("transformer.layers.*", "to_out.*"), frozenset({"mlp_head"})
    ),
    "fourier": Foreign(
        vit("simple_vit_with_fft", "SimpleViT", freq_patch_size=8), image, fused(BLOCK, "to_out"), LINEAR
    ),
    # Its `linear_head` is a norm.
    "norms": Foreign(vit("simple_vit_with_qk_norm", "SimpleViT"), image, fused(BLOCK, "to_out")),
    "1-d": Foreign(
        of("vit_pytorch.vit_1d", "ViT", seq_len=32, patch_size=8, **LONG),
        numbers(2, 3, 32),
        fused(BLOCK, "to_out.*"),
        LAST,
    ),
    "3-d": Foreign(
        of("vit_pytorch.vit_3d", "ViT", image_size=16, image_patch_size=8, frames=4, frame_patch_size=2, **LONG),
        numbers(2, 3, 4, 16, 16),
        fused(BLOCK, "to_out.*"),
        LAST,
    ),
    "cct": Foreign(
        of("vit_pytorch.cct", "CCT", img_size=32, embedding_dim=32, num_layers=2, num_heads=2, num_classes=5),
        image,
        fused("classifier.blocks.*.self_attn", "proj", "qkv"),
        frozenset({"classifier.fc"}),
    ),
    "memory": Foreign(vit("learnable_memory_vit"), image, halved(BLOCK, "to_out.*"), LAST),
    "merger": Foreign(
        vit("vit_with_patch_merger", patch_merge_layer=1, patch_merge_num_tokens=8),
        image,
        fused(BLOCK, "to_out.*"),
        LAST,
    ),
}
SEGMENTATION = frozenset({"segmentation_head.*"})
SMP = "segmentation_models_pytorch"
MONAI = "monai.networks.nets"
STAGES = [halved(f"encoder.block{n}.*.attn", "proj", "q", "kv") for n in range(1, 5)]
WINDOWS = [fused(f"swinViT.layers{n}.*.blocks.*.attn", "proj", "qkv") for n in range(1, 5)]
OTHERS = {
    "smp unet": Foreign(
        of(SMP, "Unet", "resnet18", encoder_weights=None, classes=4), lambda: image(64), {}, SEGMENTATION
    ),
    "smp segformer": Foreign(
        of(SMP, "Segformer", "mit_b0", encoder_weights=None, classes=4),
        lambda: image(64),
        {path: role for stage in STAGES for path, role in stage.items()},
        SEGMENTATION,
    ),
    "smp fpn": Foreign(
        of(SMP, "FPN", "resnet18", encoder_weights=None, classes=4), lambda: image(64), {}, SEGMENTATION
    ),
    "monai unetr": Foreign(
        of(
            MONAI,
            "UNETR",
            in_channels=1,
            out_channels=2,
            img_size=(32, 32),
            feature_size=8,
            hidden_size=48,
            mlp_dim=64,
            num_heads=2,
            spatial_dims=2,
        ),
        lambda: image(32, 1),
        fused("vit.blocks.*.attn", "out_proj", "qkv"),
        frozenset({"out.conv.conv"}),
    ),
    "monai swin": Foreign(
        of(
            MONAI,
            "SwinUNETR",
            in_channels=1,
            out_channels=2,
            feature_size=12,
            spatial_dims=2,
            depths=(2, 2, 2, 2),
            num_heads=(2, 2, 2, 2),
        ),
        lambda: image(64, 1),
        {path: role for stage in WINDOWS for path, role in stage.items()},
        frozenset({"out.conv.conv"}),
    ),
    "monai decoder": Foreign(
        of(
            MONAI,
            "DecoderOnlyTransformer",
            num_tokens=32,
            max_seq_len=16,
            attn_layers_dim=32,
            attn_layers_depth=2,
            attn_layers_heads=2,
        ),
        tokens,
        apart("blocks.*.attn", "to_q", "to_k", "to_v", "out_proj"),
        frozenset({"to_logits"}),
    ),
    "conformer": Foreign(
        of("conformer", "Conformer", dim=32, depth=2, ff_mult=2, conv_kernel_size=7, **HEADS),
        numbers(2, 9, 32),
        halved("layers.*.attn.fn", "to_out"),
    ),
    "perceiver": Foreign(
        of(
            "perceiver_pytorch",
            "Perceiver",
            input_channels=3,
            input_axis=2,
            num_freq_bands=2,
            max_freq=4.0,
            depth=2,
            num_latents=8,
            latent_dim=32,
            latent_heads=2,
            cross_dim_head=16,
            latent_dim_head=16,
            num_classes=5,
        ),
        numbers(2, 8, 8, 3),
        halved("layers.*.cross_attn.fn", "to_out") | halved("layers.*.self_attns.*.*.fn", "to_out"),
        frozenset({"to_logits.*"}),
    ),
    "local attention": Foreign(
        of(
            "local_attention",
            "LocalTransformer",
            num_tokens=32,
            dim=32,
            depth=2,
            max_seq_len=16,
            causal=True,
            local_attn_window_size=8,
            **HEADS,
        ),
        tokens,
        fused("layers.*.*.branch", "to_out"),
        frozenset({"to_logits.*"}),
    ),
    "feature tokens": Foreign(
        of(
            "tab_transformer_pytorch",
            "FTTransformer",
            categories=(3, 4),
            num_continuous=4,
            dim=32,
            dim_out=2,
            depth=2,
            **HEADS,
        ),
        table,
        fused("transformer.layers.*.*.branch", "to_out"),
        frozenset({"to_logits.*"}),
    ),
    "table": Foreign(
        of(
            "rtdl_revisiting_models",
            "ResNet",
            d_in=6,
            d_out=2,
            n_blocks=2,
            d_block=32,
            d_hidden=None,
            d_hidden_multiplier=2.0,
            dropout1=0.0,
            dropout2=0.0,
        ),
        numbers(4, 6),
        {},
        frozenset({"output.linear"}),
    ),
}
PACKAGES = {
    "torch": TORCH,
    "torchvision": TORCHVISION,
    "torchaudio": TORCHAUDIO,
    "x": X_TRANSFORMERS,
    "vit": VIT_PYTORCH,
    "": OTHERS,
}
ZOO = {f"{package} {name}".strip(): model for package, zoo in PACKAGES.items() for name, model in zoo.items()}
