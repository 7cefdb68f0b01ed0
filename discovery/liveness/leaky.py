"""Rectifiers that let a little through: which half they cut off depends on weights nobody has trained yet."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RECTIFIERS = frozenset({
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_),
    *(functional.relu6, functional.hardtanh, functional.hardtanh_, functional.hardsigmoid, functional.hardswish),
})  # fmt: skip


class Leaky(TorchFunctionMode):
    """As a context, puts a leaky rectifier in the place of one that is zero on one side."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or what stands for it."""
        del types
        if func in _RECTIFIERS:
            return functional.leaky_relu(args[0] if args else next(iter((kwargs or {}).values())), 0.1)
        return func(*args, **(kwargs or {}))
