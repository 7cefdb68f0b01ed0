"""Gradients through checkpointed blocks of a frozen model: reentrant checkpointing passes none on by itself.

``torch.utils.checkpoint(use_reentrant=True)`` computes gradients inside of a block only if one of the block's inputs
requires one. In a frozen model none does, whether a token embedding, a convolution over patches or a feature encoder
comes before the block. So the function that checkpoints is wrapped where transformers and diffusers keep it, on the
modules that checkpoint: that holds for every architecture, and leaves frozen towers without a backward.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ...discovery import read_attribute

FUNCTION = "_gradient_checkpointing_func"
FLAGS = ("gradient_checkpointing", "grad_checkpointing")
"""Attributes by which modules of transformers and diffusers, and of timm, checkpoint their blocks."""


class RequiringInputs:
    """A function that checkpoints, after making an input of a block that trains require a gradient if none does.

    Attributes:
        checkpoint: The function of the user's model.
    """

    def __init__(self, checkpoint: Callable[..., Any]) -> None:
        self.checkpoint = checkpoint

    def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Checkpoint ``function``, which calls a block with ``args``."""
        if torch.is_grad_enabled() and not any(isinstance(each, torch.Tensor) and each.requires_grad for each in args):
            block = _find_block(function)
            if block is not None and not any(parameter.requires_grad for parameter in block.parameters()):
                return function(*args)  # a frozen block keeps nothing, and torch would warn of it
            args = _require_gradient(args)
        return self.checkpoint(function, *args, **kwargs)


def _find_block(function: Any) -> nn.Module | None:
    """Return the block that a function calls: itself, the owner of the method, or an argument bound beforehand."""
    bound = function.args if isinstance(function, partial) else ()
    method = function.func if isinstance(function, partial) else function
    candidates = (function, getattr(method, "__self__", None), *bound)
    return next((each for each in candidates if isinstance(each, nn.Module)), None)


def _require_gradient(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments of which the first tensor of floating point requires a gradient."""
    for index, each in enumerate(args):
        if isinstance(each, torch.Tensor) and each.is_floating_point():
            return (*args[:index], each.detach().requires_grad_(), *args[index + 1 :])
    return args


class Checkpointing:
    """The checkpointing of a model with adapters, looked at before each forward in train mode.

    A user or a trainer may enable it at any time, on the wrapper or on the model inside.
    """

    def __init__(self, model: nn.Module, *, is_enabled: bool) -> None:
        self.modules = self._list_modules(model) if is_enabled else None
        self._wrap()  # a trainer may call a module inside of the model, which runs no hook of the model's
        self.requires_inputs = False
        self.handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let gradients into the checkpointed blocks of the forward to come."""
        if not model.training or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return None
        if self.modules is None:
            self.modules = self._list_modules(model)
        if not self._wrap():
            return None
        # Blocks that call the function of torch themselves: their gradients have to come in with the inputs.
        enable = read_attribute(model, "enable_input_require_grads")
        if enable and read_attribute(model, "_require_grads_hook") is None:
            enable()
            self.requires_inputs = True
        return tuple(map(_requiring, args)), {name: _requiring(each) for name, each in kwargs.items()}

    @staticmethod
    def _list_modules(model: nn.Module) -> list[nn.Module]:
        return [module for module in model.modules() if any(_has(module, flag) for flag in FLAGS)]

    def _wrap(self) -> bool:
        """Wrap the functions that checkpoint; return whether a module checkpoints without one."""
        needs_inputs = False
        for module in self.modules or ():
            function = module.__dict__.get(FUNCTION)
            if function is None:
                needs_inputs |= any(getattr(module, flag, False) is True for flag in FLAGS if _has(module, flag))
            elif not isinstance(function, RequiringInputs) and _may_be_reentrant(function):
                module.__dict__[FUNCTION] = RequiringInputs(function)
        return needs_inputs

    def remove(self, model: Any) -> None:
        """Restore the model."""
        self.handle.remove()
        for module in self.modules or ():
            if isinstance(function := module.__dict__.get(FUNCTION), RequiringInputs):
                module.__dict__[FUNCTION] = function.checkpoint
        if self.requires_inputs:
            model.disable_input_require_grads()
            if getattr(model, "_require_grads_hook", None) is not None:
                model._require_grads_hook = None  # noqa: SLF001 - transformers leaves the removed handle


def _has(module: nn.Module, name: str) -> bool:
    """Return whether a module has an attribute of its own or its class's, not that of a module inside."""
    return name in module.__dict__ or hasattr(type(module), name)


def _may_be_reentrant(function: Any) -> bool:
    return not (isinstance(function, partial) and function.keywords.get("use_reentrant") is False)


def _requiring(value: Any) -> Any:
    """Return an input, which requires a gradient if it is a tensor of floating point."""
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().requires_grad_() if is_float and not value.requires_grad else value
