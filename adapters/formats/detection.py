"""Recognise the format of a LoRA file by the names of its tensors."""

import re
from collections.abc import Iterable
from typing import Literal

Format = Literal["peft", "diffusers", "kohya", "comfyui", "gguf", "unknown"]

GGUF = b"GGUF"
"""First bytes of a file of llama.cpp."""

_KOHYA = re.compile(r"lora_[a-z0-9]+_[a-z0-9_]+\.(?:lora_(?:down|up|mid)\.weight|alpha|dora_scale|hada_\w+|lokr_\w+)")
_COMFYUI = ("diffusion_model.", "text_encoders.")
_DIFFUSERS = re.compile(r"lora\.(?:down|up)\.weight$|lora_linear_layer\.|_lora\.(?:down|up)\.")
_COMPONENT = re.compile(r"(?:transformer|unet|text_encoder(?:_\d)?|prior)\.")
PART = re.compile(
    r"(?P<path>.*?)\.(?P<name>(?:lora_[AB]|lora_magnitude_vector)(?:\.[^.]+)??\.(?:weight|bias)|"
    r"lora_embedding_[AB](?:\.[^.]+)?|lora_magnitude_vector(?:\.[^.]+)?|ia3_l(?:\.[^.]+)?)"
)
"""A key of PEFT's, also with the name of the adapter in it, as in the state dict of a whole model."""


def detect_format(keys: Iterable[str], *, is_configured: bool) -> Format:
    """Return the library whose names the tensors of an adapter have.

    Args:
        keys: Their names.
        is_configured: Whether an ``adapter_config.json`` is beside them, as PEFT writes it.
    """
    keys = [*keys]
    if any(_KOHYA.match(key) for key in keys):
        return "kohya"
    if any(key.startswith(_COMFYUI) for key in keys):
        return "comfyui"
    if any(_DIFFUSERS.search(key) for key in keys):
        return "diffusers"
    has_factors = any(PART.fullmatch(key) for key in keys)
    is_component = all(_COMPONENT.match(key) for key in keys)
    if has_factors and is_component and not is_configured:
        return "diffusers"
    return "peft" if has_factors or is_configured else "unknown"
