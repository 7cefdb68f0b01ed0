"""Which parameters train: gradient flags, and the biases of the base model that a LoRA may train beside its own."""

from collections.abc import Iterable

import torch
from torch import nn

from ..layers.base_layer import AdapterLayer
from ..layers.saved_modules import SavedModule
from .apply import PREFIX
from .sites import Survey


def biases(survey: Survey, adapter: str, which: str) -> dict[str, nn.Parameter]:
    """Return the biases of the base model that ``bias="all"`` or ``"lora_only"`` trains, under PEFT's file keys."""
    found: dict[str, nn.Parameter] = {}
    saved: tuple[str, ...] = ()
    for path, site in survey.sites.items():
        holding = [wrapper for wrapper in site.wrappers if adapter in _names(wrapper)]
        if any(isinstance(wrapper, SavedModule) for wrapper in holding):
            saved += (f"{path}.",)
        bias = site.module._parameters.get("bias")  # noqa: SLF001 - a Wrapper would answer for its inner module
        if bias is None or f"{path}.".startswith(saved) or not (holding or which == "all"):
            continue
        found[f"{PREFIX}{path}.{'base_layer.' if holding else ''}bias"] = bias
    return found


def _names(wrapper: nn.Module) -> Iterable[str]:
    return wrapper.adapters() if isinstance(wrapper, AdapterLayer | SavedModule) else ()


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


def set_trainable(tensors: Iterable[torch.Tensor], *, trainable: bool) -> None:
    """Set the gradient flag of parameters where the dtype allows one; buffers among them have none."""
    for tensor in tensors:
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            tensor.requires_grad = trainable
