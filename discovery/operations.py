"""torch's operations as the flow sees them: which family each belongs to, and what their arguments say."""

import inspect
from functools import cache
from typing import Any

import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from .tape import Op, Ref

CONTRACTIONS = frozenset(
    "linear matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm addbmm einsum tensordot inner dot mv chain_matmul "
    "_grouped_mm grouped_mm _scaled_mm bilinear _grouped_linear _batched_linear cdist".split()
)
CONVOLUTIONS = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc deform_conv2d".split()
)
ADDITIONS = frozenset("add __add__ __radd__ __iadd__ add_".split())
MULTIPLICATIONS = frozenset("mul __mul__ __rmul__ __imul__ mul_ multiply".split())
SOFTMAXES = frozenset("softmax _softmax softmax_ entmax15 sparsemax gumbel_softmax log_softmax".split())
RANKINGS = frozenset("topk sort argsort argmax max".split())
ACTIVATIONS = frozenset(
    "gelu relu relu_ relu6 silu silu_ sigmoid sigmoid_ tanh tanh_ softplus elu celu selu hardswish hardsigmoid hardtanh "
    "mish leaky_relu prelu logsigmoid erf exp softsign rrelu threshold clamp_min expm1".split()
)
DECAYS = frozenset("exp cumsum cumprod logcumsumexp softplus fft_fft fft_fftn fft_rfft fft_rfft2".split())
POOLINGS = frozenset("mean adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool2d amax".split())
SLICES = frozenset(
    "__getitem__ chunk split split_with_sizes tensor_split hsplit unbind narrow select index_select".split()
)
LOOKUPS = frozenset(
    "__getitem__ grid_sample grid_sampler gather index_select take_along_dim take repeat_interleave reshape_as view_as "
    "expand_as type_as to new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like".split()
)
"""Operations whose other tensors say where to read or what shape to make, not what."""
TRANSPOSITIONS = frozenset("transpose permute swapaxes swapdims T mT t movedim".split())

LAST_TWO = (-1, -2)


def contracted(op: Op) -> tuple[int, ...]:
    """Return the values an operation contracts with one another: bias, indices and offsets left out."""
    if op.name in ("addmm", "baddbmm", "addbmm"):
        return op.inputs[1:3] if len(op.inputs) > 2 else op.inputs  # noqa: PLR2004 - the first is added
    return op.inputs[:2]


@cache
def _multi_head_signature() -> inspect.Signature:
    return inspect.signature(F.multi_head_attention_forward)


def bind_multi_head(op: Op) -> dict[str, int]:
    """Return the values given to ``multi_head_attention_forward`` by parameter name."""
    bound = _multi_head_signature().bind(*op.args, **op.kwargs)
    return {name: item.value for name, item in bound.arguments.items() if isinstance(item, Ref)}


def softmax_dim(op: Op) -> int:
    """Return the dimension a softmax runs over; the last if it does not say."""
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else -1)
    return dim if isinstance(dim, int) else -1


def flips_last_dims(op: Op, shapes: list[tuple[int, ...]]) -> bool:
    """Tell whether an operation exchanges the last two dimensions."""
    dims = len(shapes[op.inputs[0]])
    if op.name in ("T", "mT", "t"):
        return True
    if op.name == "permute":
        order = op.args[1] if len(op.args) == 2 and isinstance(op.args[1], tuple) else op.args[1:]  # noqa: PLR2004
        order = order or op.kwargs.get("dims", ())
        return dims > 1 and tuple(d % dims for d in order[-2:]) == (dims - 1, dims - 2)
    pair = [d for d in op.args[1:3] if isinstance(d, int)] or [d for d in op.kwargs.values() if isinstance(d, int)]
    return {d % dims for d in pair} == {dims - 1, dims - 2} if dims else False


def is_plain_index(index: Any) -> bool:
    """Tell whether an index takes everything: only colons, ``None`` and ``...``."""
    items = index if isinstance(index, tuple) else (index,)
    return all(item is None or item is Ellipsis or item == slice(None) for item in items)


def pools_positions(op: Op, shapes: list[tuple[int, ...]]) -> bool:
    """Tell whether a mean runs over positions; over the last dimension alone it belongs to a norm."""
    if op.name not in ("mean", "amax"):
        return True
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    dims = len(shapes[op.inputs[0]])
    over = dim if isinstance(dim, tuple) else (dim,)
    return any(isinstance(d, int) and d % dims != dims - 1 for d in over) if dims else False
