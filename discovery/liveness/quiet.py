"""Turns off what makes two forwards of a model differ in train mode: dropout, dropped paths, masked inputs."""

from typing import Any

from torch import nn

from ..words import read_facts


def quiet(model: nn.Module) -> None:
    """Put a model that is thrown away in train mode, with every dropout at zero."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _silence(module.__dict__)
        config = module.__dict__.get("config")
        if isinstance(getattr(config, "__dict__", None), dict):
            _silence(vars(config))


def _silence(held: dict[str, Any]) -> None:
    words = read_facts("liveness.toml")["random"]
    for name, value in held.items():
        is_chance = isinstance(value, bool | float) and any(word in name for word in words)
        if is_chance and value:
            held[name] = type(value)(0)
