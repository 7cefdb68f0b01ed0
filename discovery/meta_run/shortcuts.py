"""What the commonest functions return on the meta device, without torch's own way there.

Torch finds the shape of a sum or an attention on meta by decompositions written in Python, 0.2 to 2 ms each and most of
the time of a forward. Every shortcut here returns a tensor of the same shape and dtype, or ``None`` where it is not
sure; then torch is asked, which also raises the error if the arguments do not fit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Shortcut = Callable[..., Tensor | None]

_PLAIN = (Tensor, nn.Parameter)
_META = torch.device("meta")
_NUMBERS = (int, float, bool)


def find_result(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """Return what a function of this name makes of meta tensors, or ``None`` if torch has to tell."""
    shortcut = _SHORTCUTS.get(name)
    if shortcut is None or _in_transform():
        return None
    if not all(value is None or type(value) in _PLAIN or isinstance(value, _HARMLESS) for value in args):
        return None
    try:
        return shortcut(*args, **kwargs)
    except (TypeError, IndexError, AttributeError, RuntimeError):
        return None  # arguments the shortcut does not know


def _in_transform() -> bool:
    """Tell whether ``vmap`` and the like are at work: what they hand around are no plain tensors."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 - there is no public name


_HARMLESS = (*_NUMBERS, str, tuple, list, torch.dtype)


def _like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=_META)


def _binary(left: Any, right: Any) -> Tensor | None:
    return _joined(left, right, torch.result_type(left, right))


def _division(left: Any, right: Any) -> Tensor | None:
    dtype = torch.result_type(left, right)
    return _joined(left, right, dtype if dtype.is_floating_point else torch.get_default_dtype())


def _comparison(left: Any, right: Any) -> Tensor | None:
    return _joined(left, right, torch.bool)


def _joined(left: Any, right: Any, dtype: torch.dtype) -> Tensor | None:
    if isinstance(right, _NUMBERS):
        return _like(left, dtype)
    if isinstance(left, _NUMBERS):
        return _like(right, dtype)
    if dtype.is_complex:
        return None
    shape = left.shape if left.shape == right.shape else _broadcast(left.shape, right.shape)
    return torch.empty(shape, dtype=dtype, device=_META)


def _unary(tensor: Tensor, *options: Any, **named: Any) -> Tensor | None:
    if not tensor.dtype.is_floating_point or named.pop("inplace", False) or any(value is True for value in options):
        return None
    return _like(tensor)


def _broadcast(shape: torch.Size, other: torch.Size) -> torch.Size:
    joined: torch.Size = torch.broadcast_shapes(shape, other)  # type: ignore[no-untyped-call]
    return joined


def _linear(tensor: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    fits = weight.dim() == 2 and tensor.shape[-1] == weight.shape[1] and tensor.dtype == weight.dtype  # noqa: PLR2004
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return torch.empty((*tensor.shape[:-1], weight.shape[0]), dtype=tensor.dtype, device=_META)


def _matmul(left: Tensor, right: Tensor) -> Tensor | None:
    if min(left.dim(), right.dim()) < 2 or left.shape[-1] != right.shape[-2] or left.dtype != right.dtype:  # noqa: PLR2004
        return None
    lead = left.shape[:-2]
    if lead != right.shape[:-2]:
        lead = _broadcast(lead, right.shape[:-2])
    return torch.empty((*lead, left.shape[-2], right.shape[-1]), dtype=left.dtype, device=_META)


def _attention(  # noqa: PLR0913, PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 - torch's own signature
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002 - torch's own signature
) -> Tensor | None:
    del dropout_p, is_causal, scale
    fits = query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2] and query.dtype == value.dtype
    heads = query.shape[:-2] == key.shape[:-2] == value.shape[:-2] or enable_gqa
    if not fits or not heads or not _is_mask_for(attn_mask, query, key):
        return None
    return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=_META)


def _is_mask_for(mask: Tensor | None, query: Tensor, key: Tensor) -> bool:
    if mask is None:
        return True
    wanted = (*query.shape[:-1], key.shape[-2])
    sizes = zip(reversed(mask.shape), reversed(wanted), strict=False)
    return mask.dtype in (torch.bool, query.dtype) and all(size in (1, most) for size, most in sizes)


def _layer_norm(
    tensor: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, *rest: Any, **named: Any
) -> Tensor | None:
    del weight, rest, named
    fits = tuple(tensor.shape[-len(normalized_shape) :]) == tuple(normalized_shape)
    return _like(tensor) if fits and tensor.dtype.is_floating_point else None


def _channel_norm(tensor: Tensor, *rest: Any, **named: Any) -> Tensor | None:
    vector = next((value for value in (*rest, *named.values()) if type(value) in _PLAIN), None)
    return _like(tensor) if vector is None or vector.shape[0] == tensor.shape[1] else None


def _softmax(tensor: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    del dim, _stacklevel
    return _like(tensor, dtype)


def _mean(tensor: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Tensor | None:  # noqa: FBT001, FBT002
    if named or dim is None or not tensor.dtype.is_floating_point:
        return None
    dims = {place % tensor.dim() for place in ((dim,) if isinstance(dim, int) else dim)}
    sizes = [1 if place in dims else size for place, size in enumerate(tensor.shape) if keepdim or place not in dims]
    return torch.empty(sizes, dtype=tensor.dtype, device=_META)


def _cat(tensors: Sequence[Tensor], dim: int = 0, **named: Any) -> Tensor | None:
    first = tensors[0]
    place = dim % first.dim()
    rest = [(*tensor.shape[:place], *tensor.shape[place + 1 :]) for tensor in tensors]
    if named or any(
        shape != rest[0] or tensor.dtype != first.dtype for shape, tensor in zip(rest, tensors, strict=True)
    ):
        return None
    size = sum(tensor.shape[place] for tensor in tensors)
    return torch.empty((*first.shape[:place], size, *first.shape[place + 1 :]), dtype=first.dtype, device=_META)


_BINARY = "add mul sub __add__ __radd__ __mul__ __rmul__ __sub__ __rsub__ multiply maximum minimum"
_DIVISIONS = "div true_divide __truediv__ __rtruediv__"
_COMPARISONS = "eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__"
_UNARY = "neg __neg__ abs exp log sqrt rsqrt sigmoid tanh silu gelu relu relu6 softplus hardswish hardsigmoid elu mish"
_SHORTCUTS: dict[str, Shortcut] = {
    **dict.fromkeys(_BINARY.split(), _binary),
    **dict.fromkeys(_DIVISIONS.split(), _division),
    **dict.fromkeys(_COMPARISONS.split(), _comparison),
    **dict.fromkeys(_UNARY.split(), _unary),
    "pow": _binary,
    "__pow__": _binary,
    "linear": _linear,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "batch_norm": _channel_norm,
    "softmax": _softmax,
    "mean": _mean,
    "cat": _cat,
}
