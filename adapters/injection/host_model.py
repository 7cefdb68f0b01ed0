"""The user's model around the adapters: its own attributes, switches and gradient flags."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .sites import Survey


def name_of(model: nn.Module) -> str | None:
    """Return the name or path that a transformers model was loaded from."""
    name = model.__dict__.get("name_or_path")
    return name if isinstance(name, str) and name else None


def origin_of(model: nn.Module) -> dict[str, str]:
    """Return class and module of a model, as PEFT stores them for its automatic classes (``auto_mapping``)."""
    return {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}


def is_checkpointing(survey: Survey) -> bool:
    """Return whether gradient checkpointing is on in a module of a transformers model."""
    # The model's own property walks over every module twice, which costs as much as the rest of an injection.
    return any(module.__dict__.get("gradient_checkpointing", False) for module in survey.modules())


def require_input_gradients(model: nn.Module) -> bool:
    """Make the inputs of the first block require gradients; return whether this call changed that.

    Checkpointed blocks pass no gradient on when none of their inputs requires one, as with a frozen embedding.
    """
    enable = getattr(model, "enable_input_require_grads", None)
    if enable is None or getattr(model, "_require_grads_hook", None) is not None:
        return False
    enable()
    return True


def release_input_gradients(model: Any) -> None:
    """Undo ``require_input_gradients``."""
    model.disable_input_require_grads()
    if getattr(model, "_require_grads_hook", None) is not None:
        model._require_grads_hook = None  # noqa: SLF001 - transformers leaves the removed handle


def leave_fast_path(survey: Survey) -> list[nn.Module]:
    """Keep PyTorch's encoders from packing padded batches for a fast path that calls no layer; return those encoders.

    A hook keeps the layers inside of them off that path (``apply.attach``).
    """
    encoders: list[Any] = [
        each for each in survey.modules() if isinstance(each, nn.TransformerEncoder) and each.use_nested_tensor
    ]
    for encoder in encoders:
        encoder.use_nested_tensor = False
    return encoders


def rejoin_fast_path(encoders: Iterable[Any]) -> None:
    """Undo ``leave_fast_path``."""
    for encoder in encoders:
        encoder.use_nested_tensor = True


def note_untied(model: Any) -> bool:
    """Clear ``tie_word_embeddings`` of a transformers model whose embeddings became untied; return whether they did.

    Otherwise saving and reloading would tie them again and drop the trained head.
    """
    config = getattr(model, "config", None)
    if config is None or not getattr(config, "tie_word_embeddings", False):
        return False
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is None or written is None or read.weight is written.weight:
        return False
    config.tie_word_embeddings = False
    return True


def freeze(survey: Survey) -> list[tuple[nn.Module, str]]:
    """Freeze the whole model; return the module and name of every parameter that required gradients.

    Not the parameters themselves: moving a model off the meta device replaces them.
    """
    before: list[tuple[nn.Module, str]] = []
    for module in survey.modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001 - a generator per module costs more than the walk
            if parameter is not None and parameter.requires_grad:
                before.append((module, name))
    for module, name in before:
        module._parameters[name].requires_grad = False  # type: ignore[union-attr]  # noqa: SLF001
    return before


def set_trainable(tensors: Iterable[torch.Tensor], *, trainable: bool) -> None:
    """Set the gradient flag of the parameters among ``tensors`` whose dtype allows one."""
    for tensor in tensors:
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            tensor.requires_grad = trainable
