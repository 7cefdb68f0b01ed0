"""Depth and widths for prompt-learning methods: from the configuration as PEFT reads it, else from the layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...domain.architectures import PromptFacts
from ...domain.layers import Layer
from ...domain.methods import list_fact_names


def read_prompt_facts(configuration: Mapping[str, Any], layers: Sequence[Layer]) -> PromptFacts:
    """Return depth and widths of the language model (``_prepare_prompt_learning_config``, peft 0.21.2).

    Args:
        configuration: The model's, as a dictionary; empty if it has none.
        layers: The model's, for the depth and width missing from the configuration.
    """
    text = configuration.get("text_config") or configuration
    found = {
        fact: next(filter(None, (_size(text.get(name)) for name in names)), None)
        for fact, names in list_fact_names().items()
    }
    blocks = {layer.block for layer in layers if layer.block and layer.role.startswith("attention.")}
    # PEFT reads the depth of the outer configuration first.
    depth = _size(configuration.get("num_hidden_layers")) or found["num_layers"] or len(blocks) or None
    tokens = (layer.out_features for layer in layers if layer.role == "embedding.token")
    queries = (layer.in_features for layer in layers if layer.role in ("attention.query", "attention.qkv"))
    heads, width = found["num_attention_heads"], found["token_dim"] or next(tokens, None) or next(queries, None)
    cached, head_dim = _largest_cache(text, found["num_key_value_heads"] or heads, found["head_dim"])
    head_dim = head_dim or (width // heads if width and heads else None)
    return PromptFacts(
        num_layers=depth,
        num_attention_heads=heads,
        token_dim=width,
        num_key_value_heads=cached,
        key_value_dim=cached * head_dim if cached and head_dim else None,
    )


def _largest_cache(text: Mapping[str, Any], heads: int | None, head_dim: int | None) -> tuple[int | None, int | None]:
    """Return (heads, width of one) of the layers that cache most keys and values: a prefix is made for those."""
    if _size(text.get("global_head_dim")):
        return _size(text.get("num_global_key_value_heads")) or heads, _size(text["global_head_dim"])
    per_layer = text.get("per_layer_config")
    cached = heads, head_dim
    for layer in per_layer.values() if isinstance(per_layer, Mapping) else ():
        wider = _size(layer.get("head_dim"))
        if wider and wider > (cached[1] or 0):
            cached = _size(layer.get("num_key_value_heads")) or heads, wider
    return cached


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
