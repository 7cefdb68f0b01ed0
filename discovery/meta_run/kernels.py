"""Count the bytes that operations on meta make and free, with the kernels of the device that is meant.

On meta, torch itself would store the scores of every attention, and a mask of floats for every dropout.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Device = Literal["cuda", "cpu"]
_HEADS = 4
"""Dimensions of a query: samples, heads, tokens, features."""


# The public name of attention chooses among these, but on meta.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
_EFFICIENT = torch.ops.aten._scaled_dot_product_efficient_attention  # noqa: SLF001
_GROUPED = getattr(torch, "_grouped_mm", None)
"""The product of experts, each with its own rows; torch 2.8 may lack it."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch annotates neither
    """As a context, count the bytes of all storages that operations make, until they are freed.

    Args:
        known: Tensors that are not counted: weights.

    Attributes:
        now: Bytes at this time.
        peak: The most bytes so far.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in known:
            self._add(tensor, is_counted=False)

    def _add(self, tensor: Tensor, *, is_counted: bool = True) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes() if is_counted else 0
        if key in self._alive:
            return

        def free(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, free)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` and count what it makes; values that are only known beside meta tensors are on the CPU."""
        del types
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                self._add(leaf)
        return result


class Kernels(TorchFunctionMode):
    """As a context, run dropout and attention on meta as the kernels of a device would.

    On meta, torch itself would store the scores of every attention, and a mask of floats for every dropout.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.attention: Counter[str] = Counter()
        self._device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or what runs in its place."""
        del types
        if func is functional.scaled_dot_product_attention:
            return self._attend(func, *args, **(kwargs or {}))
        if func is functional.dropout and self._device == "cuda":
            return _drop(*args, **(kwargs or {}))
        if func == _GROUPED and args[0].dtype is not torch.bfloat16:  # of which alone meta has the shapes
            return _GroupedProduct.apply(*args[:2])
        return func(*args, **(kwargs or {}))

    def _attend(self, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Tensor:
        """Attend in one kernel, which keeps one number for each query and head, where the device has one."""
        named |= dict(zip(("attn_mask", "dropout_p", "is_causal"), args, strict=False))
        mask, chance, is_causal = named.get("attn_mask"), named.get("dropout_p", 0.0), named.get("is_causal", False)
        is_fused = query.ndim == _HEADS and not (mask is not None and mask.requires_grad)
        if self._device == "cpu":
            is_fused = is_fused and not chance and query.shape[-1] == value.shape[-1]
        self.attention["fused" if is_fused else "plain"] += 1
        if not is_fused:
            return func(query, key, value, **named)  # type: ignore[no-any-return]
        if mask is not None and mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
        attended: Tensor
        if query.shape[-1] == value.shape[-1]:
            attended, _ = _FLASH(query, key, value, 0.0, is_causal, attn_mask=mask, scale=named.get("scale"))
        else:
            times = query.shape[1] // key.shape[1]
            key, value = (each.repeat_interleave(times, 1) if times > 1 else each for each in (key, value))
            how = (mask, torch.is_grad_enabled(), chance, is_causal)
            attended, *_ = _EFFICIENT(query, key, value, *how, scale=named.get("scale"))
        return attended


def _drop(x: Tensor, p: float = 0.5, *how: bool, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop out as a GPU does, which keeps one byte for each element; ``how`` are the last two by position."""
    training, inplace = (*how, *(training, inplace)[len(how) :])
    return torch.native_dropout(x, p, training)[0] if training and p else functional.dropout(x, p, training, inplace)


class _GroupedProduct(torch.autograd.Function):
    """The shapes of ``grouped_mm``: rows (n, in) with a stack of matrices (experts, in, out)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: Tensor) -> Tensor:
        """Return (n, out); what a gradient needs is kept for it, as torch does."""
        needed = ctx.needs_input_grad
        ctx.shapes = rows.shape, matrices.shape
        ctx.save_for_backward(rows if needed[1] else None, matrices if needed[0] else None)
        return rows.new_empty((rows.shape[0], matrices.shape[2]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of those that need one."""
        pairs = zip(ctx.shapes, ctx.needs_input_grad, strict=True)
        return tuple(gradient.new_empty(shape) if is_needed else None for shape, is_needed in pairs)


class _Dequantised(torch.autograd.Function):
    """A linear whose packed weight is unpacked for each product, and not kept (bitsandbytes 0.48, ``MatMul4Bit``)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply with the unpacked weight (out, in)."""
        ctx.save_for_backward(weight)
        return functional.linear(x, torch.empty_like(weight, dtype=x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply with the weight, unpacked again."""
        (weight,) = ctx.saved_tensors
        return gradient @ torch.empty_like(weight, dtype=gradient.dtype), None, None


def quantise(linear: Any, *, is_transposed: bool = False) -> None:
    """Let a linear on meta work as a quantised one does, from now on; its weight keeps its shape and dtype."""

    def forward(x: Tensor) -> Tensor:
        weight = linear._parameters["weight"]  # noqa: SLF001 - past wrappers
        weight = weight.t() if is_transposed else weight
        return _Dequantised.apply(x, weight, linear._parameters["bias"])  # type: ignore[no-any-return]  # noqa: SLF001

    linear.__dict__["forward"] = forward
