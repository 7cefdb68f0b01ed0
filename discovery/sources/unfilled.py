"""Building without weights: everything on meta, and nothing spent on filling what has no storage.

A torch function mode does it, so no foreign function is replaced and nothing is left to restore.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._device import DeviceContext

_FILLING_METHODS = (
    *("uniform_", "normal_", "fill_", "zero_", "copy_", "erfinv_"),
    *("mul_", "add_", "sub_", "div_", "clamp_", "bernoulli_", "random_"),
)
_INITIALISERS = ("uniform_", "normal_", "constant_", "kaiming_uniform_")
_FILLING = frozenset(
    [*(getattr(Tensor, name) for name in _FILLING_METHODS), *(getattr(nn.init, name) for name in _INITIALISERS)]
)
"""What changes a tensor's values and never its shape; of ``torch.nn.init`` those a mode sees whole."""


class OnMeta(DeviceContext):
    """As ``torch.device("meta")``, but leaves values alone: a tensor on meta has none."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, unless it would only fill a tensor on meta."""
        if func in _FILLING:
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


@contextmanager
def unfilled() -> Iterator[None]:
    """Build on meta inside this context, without filling weights and without collecting garbage in between."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        with OnMeta():
            yield
    finally:
        if was_collecting:
            gc.enable()


def move_to_meta(model: nn.Module) -> None:
    """Move what a constructor put on another device by its old type (``torch.FloatTensor``) to meta; ties stay ties."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):  # noqa: SLF001  # the public setters refuse a swap of kind
            for name, tensor in held.items():
                if tensor is not None and not tensor.is_meta:
                    held[name] = made.setdefault(id(tensor), _as_meta(tensor))  # type: ignore[assignment]


def _as_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
