"""The update of a linear layer and the layer itself as one step of autograd: ``x @ W.T + scaling * (x @ A.T) @ B.T``."""

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional


def can_fuse(base: nn.Module, *factors: nn.Module) -> bool:
    """Tell whether nothing but plain arithmetic happens in these modules, so that they can be passed by.

    Not so with hooks (offloading, ZeRO), a forward of the layer's own, tensors of a class of their own (quantised,
    sharded), or a base that trains. Under autocast, a compiler, torch.func or forward-mode derivatives, the plain way
    is left to them.
    """
    weight, bias = base._parameters.get("weight"), base._parameters.get("bias")  # noqa: SLF001 - in every forward
    return (
        type(base).forward is nn.Linear.forward
        and type(weight) is nn.Parameter
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and not any(_is_watched(module) for module in (base, *factors))
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(weight.device.type)
        and forward_ad._current_level < 0  # noqa: SLF001 - as its own functions ask
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001 - as autograd.Function asks itself
    )


def _is_watched(module: nn.Module) -> bool:
    own: dict[str, Any] = module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks or "forward" in own)


def low_rank_linear(
    x: torch.Tensor, base: nn.Module, first: nn.Module, second: nn.Module, scaling: float
) -> torch.Tensor:
    """Return what a linear layer and the update of its two factors give for ``x`` (*, in); see ``can_fuse``."""
    own = base._parameters  # noqa: SLF001 - past nn.Module.__getattr__, in every forward
    tensors = own["weight"], own.get("bias"), first._parameters["weight"], second._parameters["weight"]  # noqa: SLF001
    if torch.is_grad_enabled():
        return LowRankLinear.apply(x, *tensors, scaling)  # type: ignore[no-any-return,no-untyped-call]
    return _forward(x, *tensors, scaling)[0]  # type: ignore[arg-type]


def _forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum for ``x`` (*, in), and ``x @ A.T``: weight (out, in), first (r, in), second (out, r)."""
    result = functional.linear(x, weight, bias)
    down = functional.linear(x.to(first.dtype), first)
    return _add_product(result, down, second.T, scaling), down


class LowRankLinear(torch.autograd.Function):
    """A frozen linear layer and its update. Where their dtypes differ, the update is computed in its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *tensors_and_scaling: Any) -> torch.Tensor:
        """Return the sum for ``x``; see ``low_rank_linear``."""
        weight, bias, first, second, scaling = tensors_and_scaling
        result, down = _forward(x, weight, bias, first, second, scaling)
        ctx.save_for_backward(x, weight, first, second, down)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of ``x`` and both factors."""
        x, weight, first, second, down = ctx.saved_tensors
        if torch.is_grad_enabled():  # of a gradient that will be differentiated again, nothing may be a constant
            down = functional.linear(x.to(first.dtype), first)
        wanted = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        own = flat.to(second.dtype)
        up = own @ second * ctx.scaling
        of_x = of_first = of_second = None
        if wanted[0]:
            of_x = flat @ weight
            of_x = _add_product(of_x, up, first).view(x.shape)
        if wanted[3]:
            of_first = up.T @ x.reshape(-1, x.shape[-1]).to(first.dtype)
        if wanted[4]:
            of_second = own.T @ down.reshape(-1, down.shape[-1]) * ctx.scaling
        return of_x, None, None, of_first, of_second, None


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scaling: float = 1.0) -> torch.Tensor:
    """Add ``scaling * left @ right`` to ``total`` (*, n), in place, in one product where the dtypes agree."""
    if total.dtype == left.dtype and total.is_contiguous():
        flat = total.view(-1, total.shape[-1])
        flat.addmm_(left.reshape(-1, left.shape[-1]), right, alpha=scaling)
        return total
    return total.add_(left @ right, alpha=scaling)
