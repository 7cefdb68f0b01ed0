"""Makes a build that is thrown away fit for a proof: two forwards of it agree, and every token has a row."""

from typing import Any

import torch
from torch import nn

from ..facts.data_files import read_facts


def quiet(model: nn.Module) -> None:
    """Put a model that is thrown away in train mode, with every dropout at zero.

    Its default configuration may name a special token beyond its vocabulary: such a token gets the last row.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(_within)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _silence(module.__dict__)
        config = module.__dict__.get("config")
        if isinstance(getattr(config, "__dict__", None), dict):
            _silence(vars(config))


def _within(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    rows = module._parameters["weight"]
    first = arguments[0] if arguments else None
    if rows is None or not isinstance(first, torch.Tensor) or first.is_floating_point() or first.is_meta:
        return arguments
    return first.clamp(0, rows.shape[0] - 1), *arguments[1:]


def _silence(held: dict[str, Any]) -> None:
    words = read_facts("liveness.toml")["random"]
    for name, value in held.items():
        is_chance = isinstance(value, bool | float) and any(word in name for word in words)
        if is_chance and value:
            held[name] = type(value)(0)
