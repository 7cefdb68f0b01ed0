"""A way for gradients that only untrained weights hold up: cut off by a rectifier, or too small for their precision."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RECTIFIERS = frozenset({
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_),
    *(functional.relu6, functional.hardtanh, functional.hardtanh_, functional.hardsigmoid, functional.hardswish),
})  # fmt: skip


_SMALL = 1e-6
"""A gradient whose largest number is below this is lifted to one: all that is asked is whether it is zero."""


class Leaky(TorchFunctionMode):
    """As a context, makes rectifiers leaky, and has every gradient lifted on its way back that became small."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or what stands for it."""
        del types
        if func in _RECTIFIERS:
            result: Any = functional.leaky_relu(args[0] if args else next(iter((kwargs or {}).values())), 0.1)
        else:
            result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.grad_fn is not None and result.requires_grad:
            result.register_hook(_lift)  # type: ignore[no-untyped-call]
        return result


def _lift(gradient: Tensor) -> Tensor:
    largest = gradient.abs().max() if gradient.numel() else gradient.new_ones(())
    return gradient / largest if 0 < largest < _SMALL else gradient
