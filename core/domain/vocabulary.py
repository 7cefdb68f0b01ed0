"""Define the vocabulary: libraries, kinds, roles, towers, presets, sources and statuses, and phrases made of them."""

from collections.abc import Iterable
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
    "embedding.condition",
    "modulation",
    "projector",
    "head",
    "norm",
    "other",
]

Tower = Literal["language", "vision", "audio", "projector", "main"]
Preset = Literal["default", "recommended", "attention", "mlp", "all-linear", "experts", "everything"]
PRESETS: tuple[Preset, ...] = ("default", "recommended", "attention", "mlp", "all-linear", "experts", "everything")
"""The presets a scan proposes, each where a layer matches."""
EVERYTHING: Preset = "everything"
"""The preset beyond the towers and blocks of the others: what these leave out is judged without it."""
RECOMMENDED: Preset = "recommended"
"""The preset that trains best by the evidence (``data/recommendations.toml``)."""
APART: tuple[Preset, ...] = (EVERYTHING, RECOMMENDED)
"""Presets by which no other one is judged: their layers are not what it was meant to reach."""
STANDS_FOR: dict[str, Preset] = {RECOMMENDED: "all-linear"}
"""The preset that has the layers of another one, unless that one is proposed for itself."""

RANK = 8
"""PEFT's default rank, at which sizes are stated."""

SourceKind = Literal["community", "peft", "scanner"]
Status = Literal["live", "partial", "dead", "unproven"]


def count_layers(count: int, role: str = "") -> str:
    """Return a number of layers in words: ``1 head layer``."""
    return count_of(count, f"{role} layer".lstrip())


def count_of(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 block``, ``2 blocks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_slot(pattern: str, role: Role, count: int) -> str:
    """Return a slot in words: ``model.layers.*.q_proj is attention.query (32 layers)``."""
    known = "" if role == "other" else f" is {role}"
    return f"{pattern}{known} ({count_layers(count)})"


def list_some(names: Iterable[str], limit: int = 3) -> str:
    """Return the first names and the number of the others: ``a, b, c and 2 more``."""
    names = [*names]
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def describe_bytes(size: float) -> str:
    """Return a number of bytes in words: ``13.5 GB``, ``84 MB``."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            number = size / 1000**power
            return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"  # noqa: PLR2004 - three digits
    return f"{size:.0f} bytes"
