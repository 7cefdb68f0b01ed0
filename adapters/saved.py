"""The stand-in for a module that is trained in full: the frozen original beside a trainable copy."""

import copy
from typing import Any

import torch
from torch import nn

from .wrapper import Wrapper


class SavedModule(Wrapper):
    """A frozen original and its trainable copy, under PEFT's names (``ModulesToSaveWrapper``, 0.21.2).

    Attributes:
        original_module: The module that was there.
        modules_to_save: The copy, by adapter name.
        disable_adapters: Whether the original answers.
    """

    original_module: nn.Module

    def __init__(self, original: nn.Module, adapter: str) -> None:
        super().__init__()
        self.original_module = original
        self.modules_to_save = nn.ModuleDict({adapter: copy.deepcopy(original)})
        self.active_adapter = adapter
        self.disable_adapters = False
        self.training = self.modules_to_save.training = original.training

    def inner(self) -> nn.Module | None:
        """Return the module that answers now."""
        children = self.__dict__.get("_modules", {})
        if "modules_to_save" not in children:
            return None
        return self.original_module if self.disable_adapters else self.trained()

    def trained(self) -> nn.Module:
        """Return the trainable copy."""
        return self.modules_to_save[self.active_adapter]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original or its copy returns."""
        return (self.original_module if self.disable_adapters else self.trained())(*args, **kwargs)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Return the copy's tensors under the names they have in PEFT's files."""
        return dict(self.trained().state_dict(keep_vars=True))
