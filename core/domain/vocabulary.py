"""Define the vocabulary: libraries, kinds, roles, towers, presets, sources and statuses."""

from typing import Literal

Library = Literal["transformers", "timm", "diffusers", "torch"]

Kind = Literal[
    "linear",
    "transposed_linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "embedding",
    "norm",
    "multihead_attention",
    "expert_parameter",
    "other",
]

CONV_KINDS: tuple[Kind, ...] = ("conv1d", "conv2d", "conv3d")

Role = Literal[
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.qkv",
    "attention.kv",
    "attention.latent",
    "attention.output",
    "mixer.input",
    "mixer.state",
    "mixer.output",
    "mlp.gate",
    "mlp.up",
    "mlp.gate_up",
    "mlp.down",
    "moe.router",
    "expert.gate",
    "expert.up",
    "expert.gate_up",
    "expert.down",
    "conv.pointwise",
    "conv.depthwise",
    "conv.spatial",
    "embedding.token",
    "embedding.position",
    "embedding.patch",
    "projector",
    "head",
    "norm",
    "other",
]

Tower = Literal["language", "vision", "audio", "projector", "main"]
Preset = Literal["default", "attention", "mlp", "all-linear", "experts"]
PRESETS: tuple[Preset, ...] = ("default", "attention", "mlp", "all-linear", "experts")
"""The presets a scan proposes, each where a layer matches."""

RANK = 8
"""PEFT's default rank, at which sizes are stated."""

SourceKind = Literal["community", "peft", "scanner"]
Status = Literal["live", "partial", "dead", "unproven"]
