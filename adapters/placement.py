"""Replacements and where they go: what ``apply`` hands to ``PeftModel``."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from .config import LoraConfig
from .layers import LoraLayer
from .saved import SavedModule
from .sites import Site, Survey

PREFIX = "base_model.model."
"""What every key of an adapter file begins with."""


class Placement(NamedTuple):
    """A replacement and the site it goes to."""

    path: str
    site: Site
    replacement: LoraLayer | SavedModule


def file_state(placements: Iterable[Placement]) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors under PEFT's file keys, which leave the adapter's name out."""
    return {
        f"{PREFIX}{placement.path}.{name}": tensor
        for placement in placements
        for name, tensor in placement.replacement.adapter_state().items()
    }


def biased_modules(survey: Survey, placements: Iterable[Placement], config: LoraConfig) -> dict[str, nn.Module]:
    """Return the modules of the base model whose bias ``config.bias`` trains, under PEFT's file keys for it."""
    kinds = {placement.path: isinstance(placement.replacement, LoraLayer) for placement in placements}
    saved = tuple(f"{path}." for path, is_lora in kinds.items() if not is_lora)
    found: dict[str, nn.Module] = {}
    for path, site in survey.sites.items() if config.bias != "none" else ():
        bias = site.module._parameters.get("bias")  # noqa: SLF001 - a Wrapper would answer for its inner module
        is_adapted = kinds.get(path, False)
        if bias is not None and (is_adapted or config.bias == "all") and not f"{path}.".startswith(saved):
            found[f"{PREFIX}{path}.{'base_layer.' if is_adapted else ''}bias"] = site.module
    return found


def freeze(survey: Survey) -> list[tuple[nn.Module, str]]:
    """Freeze the whole model; return the module and name of every parameter that required gradients.

    Not the parameters themselves: moving a model off the meta device replaces them.
    """
    before: list[tuple[nn.Module, str]] = []
    for module in survey.modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001 - see Survey.parameters
            if parameter is not None and parameter.requires_grad:
                before.append((module, name))
    for module, name in before:
        module._parameters[name].requires_grad = False  # type: ignore[union-attr]  # noqa: SLF001
    return before


def set_trainable(parameters: Iterable[nn.Parameter], *, trainable: bool) -> None:
    """Set the gradient flag where the dtype allows one."""
    for parameter in parameters:
        if parameter.is_floating_point():
            parameter.requires_grad = trainable


def adapter_parameters(replacement: LoraLayer | SavedModule) -> Iterator[nn.Parameter]:
    """Yield what trains in a replacement."""
    if isinstance(replacement, SavedModule):
        return replacement.trained().parameters()
    return iter(replacement.factors())
