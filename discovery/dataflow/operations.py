"""Torch's operations: the tape a forward is recorded on, the family of each, and the meaning of their arguments."""

import inspect
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F  # noqa: N812 - the usual name for it

from ...data import read_facts

_FAMILIES = {name: frozenset(operations) for name, operations in read_facts("operations.toml").items()}
"""Sets of operation names, by family; the file explains each family."""

CONTRACTIONS = _FAMILIES["contractions"]
CONVOLUTIONS = _FAMILIES["convolutions"]
ADDITIONS = _FAMILIES["additions"]
MULTIPLICATIONS = _FAMILIES["multiplications"]
ATTENTIONS = _FAMILIES["attentions"]
RECURRENCES = _FAMILIES["recurrences"]
SOFTMAXES = _FAMILIES["softmaxes"]
RANKINGS = _FAMILIES["rankings"]
ACTIVATIONS = _FAMILIES["activations"]
DECAYS = _FAMILIES["decays"]
RUNNING_SUMS = _FAMILIES["running_sums"]
POOLINGS = _FAMILIES["poolings"]
SLICES = _FAMILIES["slices"]
LOOKUPS = _FAMILIES["lookups"]
GATHERS = _FAMILIES["gathers"]
SCATTERS = _FAMILIES["scatters"]
TRANSPOSITIONS = _FAMILIES["transpositions"]
SILENT = _FAMILIES["silent"]
IN_PLACE = _FAMILIES["in_place"]
PURE = _FAMILIES["pure"]
VIEWS = _FAMILIES["views"]
CUTS = _FAMILIES["cuts"]
WITH_ARGUMENTS = _FAMILIES["with_arguments"] | VIEWS | SLICES | TRANSPOSITIONS


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a tensor in the recorded arguments of an operation."""

    value: int


@dataclass(frozen=True, slots=True)
class Op:
    """One call of a torch function.

    Attributes:
        name: The function's name, such as ``linear``, ``matmul`` or ``__getitem__``.
        inputs: Values it read, in the order of its arguments.
        outputs: Values it made.
        site: Path of the module whose forward called it.
        args: Its arguments with a ``Ref`` for each tensor, where the analysis needs them; else empty.
        kwargs: The same for keyword arguments.
        func: The function itself, where it may have to be replayed.
        is_cut: Whether no gradient passes: it ran without gradients, or detaches its input.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    site: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    func: Any = None
    is_cut: bool = False


@dataclass(slots=True)
class Tape:
    """The record of one forward; no tensor is kept.

    Attributes:
        ops: Every operation, in order.
        shapes: Shape of each value.
        counts: Values of integers or booleans: positions and masks, no features.
        parameters: For each value that is a parameter: (module path, parameter name).
        inputs: Values that came from outside and are neither parameters nor buffers.
        outputs: Floating values in the result of the forward.
        is_lost: Whether the result holds others, whose way is unknown.
        called: Paths of modules whose forward ran, and how often.
        pairs: Paths of the ``nn.MultiheadAttention`` modules that took a query and returned a pair, as PyTorch's does.
        direct_reads: For each parameter read outside its own module's forward, where no adapter runs: the file name and
            line of the code that reads it.
        returned: Values the whole model returned; empty if only parts of it ran.
    """

    ops: list[Op] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    counts: set[int] = field(default_factory=set)
    parameters: dict[int, tuple[str, str]] = field(default_factory=dict)
    inputs: set[int] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    is_lost: bool = False
    called: Counter[str] = field(default_factory=Counter)
    pairs: set[str] = field(default_factory=set)
    direct_reads: dict[tuple[str, str], str] = field(default_factory=dict)
    returned: set[int] = field(default_factory=set)


def contracted(op: Op) -> tuple[int, ...]:
    """Return the operands of a contraction, without bias, indices and offsets."""
    if op.name in ("addmm", "baddbmm", "addbmm"):
        return op.inputs[1:3] if len(op.inputs) > 2 else op.inputs  # noqa: PLR2004 - the first is added
    return op.inputs[:2]


def bind_multi_head(op: Op) -> dict[str, int]:
    """Return the values given to ``multi_head_attention_forward`` by parameter name."""
    bound = inspect.signature(F.multi_head_attention_forward).bind(*op.args, **op.kwargs)
    return {name: item.value for name, item in bound.arguments.items() if isinstance(item, Ref)}


def softmax_dim(op: Op) -> int:
    """Return the dimension a softmax runs over; the last by default."""
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else -1)
    return dim if isinstance(dim, int) else -1


def flips_last_dims(op: Op, shapes: list[tuple[int, ...]]) -> bool:
    """Return whether an operation exchanges the last two dimensions."""
    dims = len(shapes[op.inputs[0]])
    if op.name in ("T", "mT", "t"):
        return True
    if op.name == "permute":
        order = op.args[1] if len(op.args) == 2 and isinstance(op.args[1], tuple | list) else op.args[1:]  # noqa: PLR2004
        order = order or op.kwargs.get("dims", ())
        return dims > 1 and tuple(d % dims for d in order[-2:]) == (dims - 1, dims - 2)
    pair = [d for d in op.args[1:3] if isinstance(d, int)] or [d for d in op.kwargs.values() if isinstance(d, int)]
    return {d % dims for d in pair} == {dims - 1, dims - 2} if dims else False


def is_plain_index(index: Any) -> bool:
    """Return whether an index takes everything: only colons, ``None`` and ``...``."""
    items = index if isinstance(index, tuple) else (index,)
    return all(item is None or item is Ellipsis or item == slice(None) for item in items)


def pools_positions(op: Op, shapes: list[tuple[int, ...]]) -> bool:
    """Return whether a mean leaves one vector per sample.

    One over the last dimension alone belongs to a norm; one that leaves positions mixes copies of a stream.
    """
    if op.name not in ("mean", "amax"):
        return True
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    dims = len(shapes[op.inputs[0]])
    over = dim if isinstance(dim, tuple | list) else (dim,)
    left = [size for size in shapes[op.outputs[0]][1:] if size > 1]
    return len(left) <= 1 and any(isinstance(d, int) and d % dims != dims - 1 for d in over) if dims else False
