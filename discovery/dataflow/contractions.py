"""Contractions by their axes: the axes that two operands of a product share, and where an axis of a value ends up."""

from collections.abc import Iterable, Iterator, Mapping
from string import ascii_uppercase

import torch
from torch import Tensor

from .flow import Effect, Flow, Origin
from .graph import Graph
from .layouts import LARGEST, REPLAYED, replay
from .operations import TRANSPOSITIONS, Op, Tape, flips_last_dims

Letters = tuple[str, str, str]
"""A letter for each axis: of the left operand, the right one and the result."""
_MATMULS = ("__matmul__", "matmul", "bmm", "mm")
MATRIX = 2
MOST_HEADS = 128


def letters_of(op: Op, shapes: list[tuple[int, ...]]) -> Letters | None:
    """Return the letters of a product of two operands; ``None`` if its axes are unknown."""
    sizes = [len(shapes[value]) for value in op.inputs[:2]]
    if op.name == "einsum" and op.args and isinstance(op.args[0], str):
        return _letters_of_equation(op.args[0].replace(" ", ""), [len(shapes[value]) for value in op.inputs])
    if op.name not in _MATMULS or min(sizes) < MATRIX:
        return None
    batch = ascii_uppercase[: max(sizes) - MATRIX]
    left, right = (batch[len(batch) - size + MATRIX :] for size in sizes)
    return f"{left}ik", f"{right}kj", f"{batch}ij"


def _letters_of_equation(equation: str, sizes: list[int]) -> Letters | None:
    """Return the letters of an equation of Einstein's notation, with those of an ellipsis filled in."""
    given, arrow, made = equation.partition("->")
    terms = given.split(",")
    if not arrow or len(terms) != len(sizes) or len(terms) < 2:  # noqa: PLR2004 - a sum or a diagonal
        return None
    rest = [letter for letter in ascii_uppercase if letter not in equation]
    free = [size - len(term.replace("...", "")) for term, size in zip(terms, sizes, strict=True)]
    longest = max((count for term, count in zip(terms, free, strict=True) if "..." in term), default=0)
    filled = [
        term.replace("...", "".join(rest[longest - count : longest])) for term, count in zip(terms, free, strict=True)
    ]
    return filled[0], filled[1], made.replace("...", "".join(rest[:longest]))


def shared_axes(own: str, other: str, made: str) -> set[int]:
    """Return the axes of an operand that a product sums over, with the other operand."""
    return {axis for axis, letter in enumerate(own) if letter in other and letter not in made}


def ends_of_axis(tape: Tape, start: int, axis: int, target: int, ops: Iterable[Op]) -> set[int] | None:
    """Return the axes of ``target`` along which an axis of ``start`` runs; ``None`` if it cannot be followed.

    The axis is numbered, and the numbers take the way of the values: views are replayed, an operation that keeps the
    shape keeps the numbers, and a product with a constant (random features) makes new features of the old ones.
    """
    shape = tape.shapes[start]
    if torch.Size(shape).numel() > LARGEST:
        return None
    numbers = torch.arange(shape[axis], dtype=torch.int32, device="cpu")
    numbers = numbers.view([-1 if position == axis else 1 for position in range(len(shape))]).expand(shape)
    known: dict[int, Tensor] = {start: numbers.contiguous()}
    for op in ops:
        carrier = next((value for value in op.inputs if value in known), None)
        if carrier is None:
            continue
        if op.name in REPLAYED and op.inputs[0] == carrier and len(set(op.inputs)) == 1:
            known.update(zip(op.outputs, replay(op, known), strict=False))
            continue
        known |= dict(_pass_on(op, known, tape.shapes))
    return _varying(known[target]) if target in known else None


def _pass_on(op: Op, known: Mapping[int, Tensor], shapes: list[tuple[int, ...]]) -> Iterator[tuple[int, Tensor]]:
    """Yield the numbers of an operation's results by those of an operand of their shape, but for the last axis."""
    operands = [known[value] for value in op.inputs if value in known]
    for result in op.outputs:
        shape = shapes[result]
        alike = next((operand for operand in operands if tuple(operand.shape) == shape), None)
        wider = next((x for x in operands if x.dim() == len(shape) and tuple(x.shape[:-1]) == shape[:-1]), None)
        if alike is not None:
            yield result, alike
        elif wider is not None:
            is_last = wider.dim() - 1 in _varying(wider)
            yield result, (torch.arange(shape[-1], dtype=torch.int32) if is_last else wider[..., :1]).expand(shape)


def _varying(numbers: Tensor) -> set[int]:
    axes = (axis for axis in range(numbers.dim()) if numbers.shape[axis] > 1)
    return {axis for axis in axes if bool((numbers != numbers.narrow(axis, 0, 1)).any())}


def runs_over_features(graph: Graph, value: int, sources: Iterable[tuple[int, int]], axes: set[int]) -> bool | None:
    """Return whether axes of a value are made of the features of the layers it comes from; ``None`` if unknown."""
    flow = graph.flow
    for source in dict.fromkeys(source for source, _ in sources):
        layer = graph.records[source]
        if layer is None:
            continue
        origin = flow.origins[source]
        dims = len(flow.tape.shapes[origin.out])
        axis = 1 if layer.kind.startswith("conv") and dims > 1 else dims - 1
        found = ends_of_axis(flow.tape, origin.out, axis, value, _ops_between(flow, origin.op, value))
        if found is not None:
            return bool(found & axes)
    return None


def links_left(flow: Flow, inner: Origin, outer: Origin, side: int) -> bool | None:
    """Return whether the left operand of an inner product has the axis that the outer product sums over.

    The operands of two products in a row form a chain, and that operand is its middle: the keys, between queries and
    values. ``None`` if the axes are unknown.
    """
    shapes, ops = flow.tape.shapes, flow.tape.ops
    first, second = letters_of(ops[inner.op], shapes), letters_of(ops[outer.op], shapes)
    if first is None or second is None:
        return None
    left, _, made = first
    link = shared_axes(second[side], second[1 - side], second[2])
    between = _ops_between(flow, inner.op, outer.read_values[side])
    for axis, letter in enumerate(made):
        ends = ends_of_axis(flow.tape, inner.out, axis, outer.read_values[side], between)
        if ends and ends & link and shapes[inner.out][axis] > 1:
            return letter in left
    return None


def mixes_heads(flow: Flow, read: int, shape: tuple[int, ...]) -> bool:
    """Return whether a layer mixes the heads of an attention: it is small, square and on the scores.

    Its outputs are scores still (arXiv:2003.02436). A product of weights and values is none of scores.
    """
    products = [flow.origins[origin] for origin, _ in flow.read(read)]
    operands = [reads for product in products for reads in product.reads]
    before = {flow.origins[source].kind for reads in operands for source, _ in reads}
    is_weighted = any(effects & Effect.SOFTMAXED for reads in operands for effects in reads.values())
    is_scores = all(product.kind == "product" for product in products) and "product" not in before and not is_weighted
    return bool(products) and is_scores and len(set(shape)) == 1 and shape[0] <= MOST_HEADS


def mixes_positions(flow: Flow, number: int, read: int) -> bool:
    """Return whether a linear reads the positions of another's output as its features, and is turned back after it.

    Keys of fewer positions are those keys still (arXiv:2006.04768).
    """
    op, sources = flow.tape.ops[number], [*flow.read(read)]
    origin = flow.origins[sources[0][0]] if len(sources) == 1 and sources[0][1] == 0 else None
    if op.name != "linear" or origin is None or origin.name != "linear" or not is_transposed(flow, origin.out, read):
        return False
    after = next((later for later in flow.tape.ops[number + 1 :] if op.outputs[0] in later.inputs), op)
    is_turned = after.name in TRANSPOSITIONS and flips_last_dims(after, flow.tape.shapes)
    dims, between = len(flow.tape.shapes[read]), _ops_between(flow, origin.op, read)
    ends = ends_of_axis(flow.tape, origin.out, dims - 1, read, between) if is_turned else None
    return bool(ends and dims - 1 not in ends)


def is_transposed(flow: Flow, start: int, end: int) -> bool:
    """Return whether axes change places on the way from one value to another."""
    reached, first = {start}, flow.producer[start] + 1
    for op in flow.tape.ops[first : flow.producer.get(end, first) + 1]:
        if not reached.isdisjoint(op.inputs):
            if op.name in TRANSPOSITIONS:
                return True
            reached.update(op.outputs)
    return False


def _ops_between(flow: Flow, op: int, value: int) -> list[Op]:
    return flow.tape.ops[op + 1 : flow.producer.get(value, op) + 1]
