"""The low-rank factors of LoRA: their modules, and a linear layer with its update as one step of autograd.

That step is ``x @ W.T + scaling * (x @ A.T) @ B.T``.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.weak import TensorWeakRef

from .base_layer import adapter_dtype
from .wrappers import Child, init_module


class LinearFactor(nn.Linear):
    """A linear layer with unfilled parameters: LoRA would overwrite the default initialisation at once."""

    def __init__(
        self, read: int, written: int, device: torch.device, dtype: torch.dtype, *, has_bias: bool = False
    ) -> None:
        init_module(self, in_features=read, out_features=written)
        weight = nn.Parameter(torch.empty((written, read), device=device, dtype=dtype))
        bias = nn.Parameter(torch.empty(written, device=device, dtype=dtype)) if has_bias else None
        self._parameters.update(weight=weight, bias=bias)


class ConvFactor(nn.Module):
    """A convolution with unfilled parameters."""

    def __init__(
        self,
        shape: tuple[int, ...],
        groups: int,
        walk: dict[str, Any],
        where: dict[str, Any],
        *,
        has_bias: bool = False,
    ) -> None:
        channels = {"in_channels": shape[1] * groups, "out_channels": shape[0], "groups": groups}
        init_module(self, **channels, **walk, transposed=False, output_padding=(0,) * (len(shape) - 2))
        bias = nn.Parameter(torch.empty(shape[0], **where)) if has_bias else None
        self._parameters.update(weight=nn.Parameter(torch.empty(shape, **where)), bias=bias)


class Conv1dFactor(ConvFactor, nn.Conv1d):
    """A factor of a 1-D convolution."""


class Conv2dFactor(ConvFactor, nn.Conv2d):
    """A factor of a 2-D convolution."""


class Conv3dFactor(ConvFactor, nn.Conv3d):
    """A factor of a 3-D convolution."""


CONV_FACTORS: dict[str, type[ConvFactor]] = {
    "conv1d": Conv1dFactor,
    "conv2d": Conv2dFactor,
    "conv3d": Conv3dFactor,
}


def linear_factors(read: int, written: int, r: int, like: torch.Tensor, *, has_bias: bool = False) -> dict[str, Child]:
    """Create ``A`` (r, read) and ``B`` (written, r), uninitialised, on the device of ``like``."""
    where = like.device, adapter_dtype(like.dtype)
    return {"lora_A": LinearFactor(read, r, *where), "lora_B": LinearFactor(r, written, *where, has_bias=has_bias)}


def can_fuse(base: nn.Module, first: nn.Module, second: nn.Module) -> bool:
    """Return whether calling these modules is plain arithmetic, so that one autograd function can replace it.

    Hooks (offloading, ZeRO), an overridden forward, tensor subclasses (quantised, sharded), a base that trains and a
    second factor that trains alone, whose gradient needs no input, rule it out. So do autocast, which meta does not
    have, compilers, torch.func and forward-mode derivatives, which act on the separate operations.
    """
    weight, bias = base._parameters.get("weight"), base._parameters.get("bias")  # noqa: SLF001 - in every forward
    down, up = first._parameters.get("weight"), second._parameters.get("weight")  # noqa: SLF001
    return (
        type(base).forward is nn.Linear.forward
        and type(weight) is nn.Parameter
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and down is not None  # replicas of DataParallel have plain attributes
        and up is not None
        and (down.requires_grad or not up.requires_grad or not torch.is_grad_enabled())
        and not (_has_hooks(base) or _has_hooks(first) or _has_hooks(second))
        and not torch.compiler.is_compiling()
        and (weight.is_meta or not torch.is_autocast_enabled(weight.device.type))
        and forward_ad._current_level < 0  # noqa: SLF001 - as its own functions ask
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001 - as autograd.Function asks itself
    )


def _has_hooks(module: nn.Module) -> bool:
    own: dict[str, Any] = module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks or "forward" in own)


Tensors = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]
"""Weight (out, in), bias, first factor (r, in) and second factor (out, r)."""


def low_rank_linear(
    x: torch.Tensor, base: nn.Module, first: nn.Module, second: nn.Module, scaling: float
) -> torch.Tensor:
    """Return the output of a linear layer plus the update of its two factors for ``x`` (*, in); see ``can_fuse``."""
    own = base._parameters  # noqa: SLF001 - past nn.Module.__getattr__, in every forward
    down: Any = first._parameters["weight"]  # noqa: SLF001
    tensors: Any = (own["weight"], own.get("bias"), down, second._parameters["weight"])  # noqa: SLF001
    if torch.is_grad_enabled():
        is_cast = x.dtype != down.dtype and down.requires_grad
        return LowRankLinear.apply(_copies.copy(x) if is_cast else x, x, *tensors, scaling)  # type: ignore[no-any-return]
    if x.numel() == x.shape[-1]:
        return _run_row(x, tensors, scaling)
    return _forward(x, tensors, scaling)[0]


def _run_row(x: torch.Tensor, tensors: Tensors, scaling: float) -> torch.Tensor:
    """Return the sum for one row, as of a token that is generated: there each call costs as much as its products."""
    weight, bias, first, second = tensors
    result = functional.linear(x, weight, bias)
    row, down = result.view(-1), torch.mv(first, _like(x.reshape(-1), first))
    if row.dtype == down.dtype:
        row.addmv_(second, down, alpha=scaling)
    else:
        row.add_(torch.mv(second, down), alpha=scaling)
    return result


def _forward(x: torch.Tensor, tensors: Tensors, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum for ``x``, and ``A @ x.T``.

    The low rank stays the first dimension of every product, here and in the backward: on a CPU the transposed product
    takes up to five times as long.
    """
    weight, bias, first, second = tensors
    flat = x.reshape(-1, x.shape[-1])
    # Allocated in its own shape: the output of an autograd function must not be a view to change in place.
    result = x.new_empty((*x.shape[:-1], weight.shape[0]))
    rows = result.view(-1, weight.shape[0])
    if bias is None:
        torch.mm(flat, weight.t(), out=rows)
    else:
        torch.addmm(bias, flat, weight.t(), out=rows)
    down = torch.mm(first, _like(flat, first).t())
    _add_product(rows, down, second.t(), scaling)
    return result, down


class InputCopies:
    """Copies of inputs for the backward, one for all layers that read the same tensor in succession (q, k and v).

    PEFT keeps each input once per layer, converted to the factors' dtype, so that the model may change the input
    itself in place. A copy in the input's own dtype allows that too, in at most half of the memory.
    """

    _last: tuple[TensorWeakRef, int, TensorWeakRef] | None = None

    def copy(self, x: torch.Tensor) -> torch.Tensor:
        """Return a copy of ``x`` in its graph: the last one, if it is in use and ``x`` has not changed since."""
        if x.is_inference():  # which counts no changes
            return x.clone()
        if self._last is not None:
            of, version, known = self._last
            copy: torch.Tensor | None = known() if of() is x and version == x._version else None  # noqa: SLF001 - as autograd compares it
            if copy is not None and copy.requires_grad == x.requires_grad:
                return copy
        copy = x.clone()
        self._last = TensorWeakRef(x), x._version, TensorWeakRef(copy)  # noqa: SLF001
        return copy


_copies = InputCopies()


class LowRankLinear(torch.autograd.Function):
    """A frozen linear layer and its update, which is computed in its own dtype."""

    @staticmethod
    def forward(ctx: Any, kept: torch.Tensor, x: torch.Tensor, *tensors_and_scaling: Any) -> torch.Tensor:
        """Return the sum for ``x``, of which ``kept`` is for the backward; see ``low_rank_linear``."""
        *tensors, scaling = tensors_and_scaling
        weight, bias, first, second = tensors
        result, down = _forward(x, (weight, bias, first, second), scaling)
        # Nothing of the input is kept that no gradient needs: the model may change it in place.
        ctx.save_for_backward(kept if ctx.needs_input_grad[4] else None, weight, first, second, down)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of ``kept`` and both factors."""
        x, weight, first, second, down = ctx.saved_tensors
        flat = None if x is None else x.reshape(-1, x.shape[-1])
        if flat is not None and torch.is_grad_enabled():  # for a second derivative, this must not be a constant
            down = first @ _like(flat, first).t()
        of_result = gradient.reshape(-1, gradient.shape[-1])
        own = _like(of_result, second)
        up = second.t() @ own.t() * ctx.scaling
        of_x = of_first = of_second = None
        if ctx.needs_input_grad[0]:
            of_x = of_result @ weight
            _add_product(of_x, up, first)
            of_x = of_x.view(*gradient.shape[:-1], weight.shape[1])
        if flat is not None:
            of_first = up @ _like(flat, first)
        if ctx.needs_input_grad[5]:
            of_second = (down @ own * ctx.scaling).t()
        return of_x, None, None, None, of_first, of_second, None


def _like(tensor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the dtype of the factors."""
    return tensor if tensor.dtype == factor.dtype else tensor.to(factor.dtype)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scaling: float = 1.0) -> None:
    """Add ``scaling * left.T @ right`` to ``total`` in place, in one product where the dtypes agree."""
    if total.dtype == left.dtype:
        total.addmm_(left.t(), right, alpha=scaling)
    else:
        total.add_(left.t() @ right, alpha=scaling)
