"""Read the depth and widths of a model, and how many of its experts run for a token, from its configuration."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch import nn

from ...domain.architectures import PromptFacts
from ...domain.layers import Layer
from ...domain.methods import list_fact_names
from ...domain.presets import EXPERT
from .wrapped import shape_of


def read_prompt_facts(
    configuration: Mapping[str, Any],
    layers: Sequence[Layer],
    model: nn.Module | None = None,
    active_experts: int | None = None,
) -> PromptFacts:
    """Return depth and widths of the language model for prompt-learning methods, as PEFT reads the configuration.

    See ``_prepare_prompt_learning_config`` of peft 0.21.2. Depth and width missing there are those of the layers.
    ``active_experts`` is what the routers of a traced forward choose, where no configuration says.
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
        active_experts=(found["active_experts"] or _find_active(configuration) or active_experts)
        if any(x.role in EXPERT for x in layers)
        else None,
        parameters=sum(prod(shape_of(parameter)) for parameter in model.parameters()) if model is not None else None,
    )


def _find_active(configuration: Mapping[str, Any]) -> int | None:
    """Return the number of experts that run for a token, if every configuration inside that states one agrees."""
    inner = [configuration]
    stated = set[int]()
    while inner:
        values = inner.pop()
        stated.update(filter(None, (_size(values.get(name)) for name in list_fact_names()["active_experts"])))
        inner += [value for name, value in values.items() if name.endswith("_config") and isinstance(value, Mapping)]
    return next(iter(stated)) if len(stated) == 1 else None


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
