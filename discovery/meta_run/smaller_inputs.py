"""Smaller inputs: make a forward that runs on meta cheap enough to be computed, as far as the model accepts it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

AXES = ("space", "time")
"""Axes of the sizes in ``data/inputs.toml`` that may be smaller."""
MOST_BYTES = 192 << 20
"""Results of a forward in single precision up to which it is computed as it is; its gradients keep most of them."""
MOST_OPERATIONS = 3e10
"""Multiplications of a forward up to which it is computed as it is; a proof takes about ten times as many."""
_SINGLE = 4


class Cost(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch annotates neither
    """As a context, count what the operations inside would make and multiply.

    Attributes:
        bytes: Size of the results in single precision, views left out.
        operations: Floating-point operations of products and convolutions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` and count it."""
        del types
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            made = (leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
            self.bytes += _SINGLE * sum(tensor.numel() for tensor in made)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=result)
        return result

    @property
    def excess(self) -> float:
        """How many times more than is computed as it is."""
        return max(self.bytes / MOST_BYTES, self.operations / MOST_OPERATIONS)


class CostWatch:
    """Run forwards on meta and keep the cost of the last one."""

    def __init__(self) -> None:
        self.cost = Cost()

    def __call__(self, forward: Callable[[], Any]) -> None:
        """Run one forward."""
        with Cost() as cost:
            forward()
        self.cost = cost


def list_smaller(divisors: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield divisors of the axes that are the next smaller ones: of all of them at once, then of each alone."""
    for axes in (AXES, *((axis,) for axis in AXES)):
        yield {**divisors, **{axis: 2 * divisors.get(axis, 1) for axis in axes}}
