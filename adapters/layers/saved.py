"""Modules that are trained in full: a frozen original beside a copy for each adapter."""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from .as_peft import OwnAdapters, PeftLayer
from .base_layer import count_rows
from .wrappers import Steering, Wrapper


class SavedModule(OwnAdapters, PeftLayer, Wrapper):
    """A frozen original and its trainable copies, under PEFT's names (``ModulesToSaveWrapper``, 0.21.2).

    Attributes:
        original_module: The replaced module.
        modules_to_save: The copies, by adapter name.
        steering: The switch shared by the model; an active adapter without a copy uses the original.
    """

    inner_name = "original_module"
    peft_name = "utils.other.ModulesToSaveWrapper"
    containers = ("modules_to_save",)
    original_module: nn.Module

    def __init__(self, original: nn.Module, steering: Steering) -> None:
        super().__init__()
        self.original_module = original
        self.modules_to_save = nn.ModuleDict()
        self.steering = steering
        self.training = self.modules_to_save.training = original.training

    def insert(self, adapter: str, trained: nn.Module) -> None:
        """Add the copy of an adapter."""
        self.modules_to_save[adapter] = trained

    def remove(self, adapter: str) -> None:
        """Remove the copy of an adapter, if there is one."""
        if adapter in self.modules_to_save:
            del self.modules_to_save[adapter]

    def adapters(self) -> list[str]:
        """Return the names of the adapters with a copy."""
        return [*self.modules_to_save]

    def adapter_state(self, adapter: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a copy under their names in PEFT's files."""
        return dict(self.modules_to_save[adapter].state_dict(keep_vars=True))

    def adapter_state_dict_load_map(self, adapter_name: str) -> dict[str, str]:
        """Return the name in this module's state dict of each tensor of a copy, by its name in files."""
        names = self.modules_to_save[adapter_name].state_dict() if adapter_name in self.modules_to_save else ()
        return {name: f"modules_to_save.{adapter_name}.{name}" for name in names}

    def location(self, adapter: str, path: str) -> str:  # noqa: ARG002 - the counterpart of `AdapterLayer.location`
        """Return the prefix of those tensors in a file, which is the path of the module."""
        return path

    def inner(self) -> nn.Module | None:
        """Return the active module, to look attributes up on."""
        children = self.__dict__.get("_modules", {})
        return self.active_module() if "modules_to_save" in children else None

    def active_module(self, adapters: tuple[str, ...] | None = None) -> nn.Module:
        """Return the copy of the last of these adapters, or of the active ones, that has one; else the original."""
        copies = self._modules["modules_to_save"]._modules  # type: ignore[union-attr]  # noqa: SLF001
        names = self.steering.active if adapters is None else adapters
        trained = [copies[name] for name in names if name in copies and not self.steering.disabled]
        return trained[-1] if trained else self.original_module  # type: ignore[return-value]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the active module, or with ``adapter_names`` the module of each sample on its rows."""
        if (samples := self.steering.samples) is None:
            return self._run(self.active_module(), args, kwargs)
        x, *others = args
        times = count_rows(x, samples)
        rows = (x[n * times : (n + 1) * times] for n in range(len(samples)))
        results = [
            self._run(self.active_module((name,)), (own, *others), kwargs)
            for name, own in zip(samples, rows, strict=True)
        ]
        return torch.cat(results)

    def _run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a module; a copy in float32 gets its inputs in float32, and returns the dtype of the original."""
        own, around = _dtype_of(module), _dtype_of(self.original_module)
        if module is self.original_module or own == around or own is None or around is None:
            return module(*args, **kwargs)

        def convert(tensor: torch.Tensor, before: torch.dtype, after: torch.dtype) -> torch.Tensor:
            return tensor.to(after) if tensor.dtype == before else tensor

        args, kwargs = tree_map_only(torch.Tensor, lambda each: convert(each, around, own), (args, kwargs))
        return tree_map_only(torch.Tensor, lambda each: convert(each, own, around), module(*args, **kwargs))


def _dtype_of(module: nn.Module) -> torch.dtype | None:
    """Return the dtype of the first parameter in floating point."""
    return next((each.dtype for each in module.parameters() if each.is_floating_point()), None)


def widen(copy: nn.Module) -> None:
    """Convert the tensors in half precision of a copy to float32, which training needs, as factors are."""
    for tensor in (*copy.parameters(), *copy.buffers()):
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor.data = tensor.data.float()
