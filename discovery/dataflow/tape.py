"""The tape: plain records of the operations of one forward. No tensor is kept."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


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
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    site: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    func: Any = None


@dataclass(frozen=True, slots=True)
class DirectRead:
    """A read of a parameter outside its own module's forward: an adapter there would not run.

    Attributes:
        path: The module that owns the parameter.
        parameter: The parameter's name in that module.
        where: File name and line of the reading code.
    """

    path: str
    parameter: str
    where: str


@dataclass(slots=True)
class Tape:
    """The record of one forward.

    Attributes:
        root: Path of the sub-model that was run; empty for the whole model.
        ops: Every operation, in order.
        shapes: Shape of each value.
        counts: Values of integers or booleans: positions and masks, no features.
        parameters: For each value that is a parameter: (module path, parameter name).
        inputs: Values that came from outside and are neither parameters nor buffers.
        outputs: Values the forward returned.
        called: Paths of modules whose forward ran, and how often.
        direct_reads: Parameters read outside their own module's forward.
    """

    root: str = ""
    ops: list[Op] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    counts: set[int] = field(default_factory=set)
    parameters: dict[int, tuple[str, str]] = field(default_factory=dict)
    inputs: set[int] = field(default_factory=set)
    outputs: frozenset[int] = frozenset()
    called: Counter[str] = field(default_factory=Counter)
    direct_reads: dict[tuple[str, str], DirectRead] = field(default_factory=dict)
