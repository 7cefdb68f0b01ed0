"""Stand-ins for the parts of a model that do not run on meta: packed linears, TorchScript modules, FlexAttention."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name for it
from torch import Tensor, nn

from ..facts.layers import kind_of
from ..facts.wrapped import is_compiled, is_sharded, shape_of

Undo = Callable[[], None]


@contextmanager
def stand_ins(model: nn.Module, packed: list[nn.Module]) -> Iterator[None]:
    """Let ``packed`` linears and the TorchScript modules of a model run on meta inside."""
    undo = [stand_in(module) for module in packed]
    for module in model.modules():
        if not is_compiled(module):
            undo += [_on_meta(module, name) for name, child in module._modules.items() if child and is_compiled(child)]
    try:
        yield
    finally:
        for each in undo:
            each()


# --- linears ----------------------------------------------------------------------------------------------------------


def list_packed(model: nn.Module) -> list[nn.Module]:
    """Return the linears of a model whose weight is packed, quantised or under another name."""
    return [module for module in model.modules() if has_own_forward(module) and is_packed(module)]


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a module is a linear layer with a forward of its own."""
    if is_compiled(module) or type(module).forward is nn.Linear.forward:
        return False
    return kind_of(module) == "linear"


def is_packed(module: Any) -> bool:
    """Return whether a linear holds no matrix of floats that its forward could multiply with on meta."""
    weight = module._parameters.get("weight")
    if weight is None or not weight.is_floating_point() or weight.dtype.itemsize == 1:
        return True
    is_plain = type(weight) in (Tensor, nn.Parameter) or is_sharded(weight)
    return not is_plain or shape_of(weight) != (module.out_features, module.in_features)


def stand_in(module: Any) -> Undo:
    """Let a linear multiply with a plain weight: its output depends on its input as that of any linear does.

    The way of the data inside is not followed; the layer is known by the boundary of its module.
    """
    own, parameters = module.__dict__.copy(), module._parameters.copy()
    weight, shape = parameters.get("weight"), (module.out_features, module.in_features)
    if weight is None or tuple(weight.shape) != shape or not weight.is_floating_point():
        plain = torch.empty(shape, dtype=torch.get_default_dtype(), device="meta")
        module._parameters["weight"] = nn.Parameter(plain, requires_grad=False)

    def forward(x: Tensor, *_args: Any, **_named: Any) -> Tensor:
        return F.linear(x, module._parameters["weight"].to(x.dtype))

    module.__dict__["forward"] = forward

    def undo() -> None:
        module._parameters.clear()
        module._parameters.update(parameters)
        module.__dict__.pop("forward", None)
        if "forward" in own:
            module.__dict__["forward"] = own["forward"]

    return undo


# --- TorchScript ------------------------------------------------------------------------------------------------------


def _on_meta(parent: nn.Module, name: str) -> Undo:
    """Replace a compiled child by a copy on meta, if it can be copied; nothing inside of it is recorded."""
    compiled: Any = parent._modules[name]
    file = io.BytesIO()
    try:
        torch.jit.save(compiled, file)
        file.seek(0)
        parent._modules[name] = torch.jit.load(file, map_location="meta")  # type: ignore[no-untyped-call]
    except RuntimeError:
        return lambda: None  # it runs where it is, or not at all

    def undo() -> None:
        parent._modules[name] = compiled

    return undo


# --- FlexAttention ----------------------------------------------------------------------------------------------------


def _attend(  # noqa: PLR0913, PLR0917 - the signature of ``flex_attention``, whose defaults stay
    query: Any,
    key: Any,
    value: Any,
    score_mod: Any,  # noqa: ARG001
    block_mask: Any,  # noqa: ARG001
    scale: Any,
    enable_gqa: Any,
    return_lse: Any,
    kernel_options: Any,  # noqa: ARG001
    *,
    return_aux: Any,
) -> Any:
    """Attend without mask and score function, as one operation that has a gradient on the CPU as well.

    It runs with the globals of torch's function.
    """
    if torch.overrides.has_torch_function((query, key, value)):
        inputs, named = (query, key, value), {"return_lse": return_lse, "return_aux": return_aux}
        return torch.overrides.handle_torch_function(flex_attention, inputs, *inputs, **named)  # type: ignore[name-defined]  # noqa: F821
    key, value = (each.expand(query.shape[0], -1, -1, -1) for each in (key, value))
    attend = torch.nn.functional.scaled_dot_product_attention
    result = attend(query, key, value, scale=scale, enable_gqa=bool(enable_gqa))
    extra = query.new_zeros(query.shape[:-1])
    if return_aux is not None:
        return result, AuxOutput(lse=extra, max_scores=extra)  # type: ignore[name-defined]  # noqa: F821
    return (result, extra) if return_lse else result


@contextmanager
def flex_attention_as_one() -> Iterator[None]:
    """Let ``flex_attention`` be one operation inside, also where a model has imported or compiled it already."""
    module = sys.modules.get("torch.nn.attention.flex_attention")
    if module is None:
        yield
        return
    function: Any = module.flex_attention
    code = function.__code__
    function.__code__ = _attend.__code__
    try:
        yield
    finally:
        function.__code__ = code
