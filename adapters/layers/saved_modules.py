"""The stand-in for a module that is trained in full: the frozen original beside a trainable copy per adapter."""

from typing import Any

import torch
from torch import nn

from .base_layer import Steering
from .wrapper import Wrapper


class SavedModule(Wrapper):
    """A frozen original and its trainable copies, under PEFT's names (``ModulesToSaveWrapper``, 0.21.2).

    Attributes:
        original_module: The module that was there.
        modules_to_save: The copies, by adapter name.
        steering: Which adapter's copy answers; where none has one, the original does.
    """

    inner_name = "original_module"
    original_module: nn.Module
    steering: Steering

    def __init__(self, original: nn.Module, steering: Steering) -> None:
        super().__init__()
        self.original_module = original
        self.modules_to_save = nn.ModuleDict()
        self.__dict__["steering"] = steering
        self.training = self.modules_to_save.training = original.training

    def hold(self, adapter: str, trained: nn.Module) -> None:
        """Take the copy of an adapter in."""
        self.modules_to_save[adapter] = trained

    def drop(self, adapter: str) -> None:
        """Let go of the copy of an adapter; it is no error if there is none."""
        if adapter in self.modules_to_save:
            del self.modules_to_save[adapter]

    def adapters(self) -> list[str]:
        """Return the names of the adapters with a copy here."""
        return [*self.modules_to_save]

    def adapter_state(self, adapter: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a copy under the names they have in PEFT's files."""
        return dict(self.modules_to_save[adapter].state_dict(keep_vars=True))

    def location(self, adapter: str, path: str) -> str:
        """Return what the names of those tensors begin with in a file: the path of the module."""
        del adapter
        return path

    def inner(self) -> nn.Module | None:
        """Return the module that answers now."""
        children = self.__dict__.get("_modules", {})
        if "modules_to_save" not in children:
            return None
        return self.answering()

    def answering(self, adapters: tuple[str, ...] | None = None) -> nn.Module:
        """Return what answers for these adapters, or for the active ones: the last one's copy, or the original."""
        copies = self._modules["modules_to_save"]._modules  # type: ignore[union-attr]  # noqa: SLF001
        names = self.steering.active if adapters is None else adapters
        found = [copies[name] for name in names if name in copies and not self.steering.disabled]
        return found[-1] if found else self.original_module  # type: ignore[return-value]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the original or a copy returns."""
        if self.steering.samples is None:
            return self.answering()(*args, **kwargs)
        return self._by_sample(self.steering.samples, *args, **kwargs)

    def _by_sample(self, samples: tuple[str, ...], x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return, for each row of a tensor, what its sample's own copy returns."""
        times = x.shape[0] // len(samples)
        rows = [
            self.answering((name,))(x[n * times : (n + 1) * times], *args, **kwargs) for n, name in enumerate(samples)
        ]
        return torch.cat(rows)
