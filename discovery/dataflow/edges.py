"""Attention over the edges of a graph: rows gathered by one end of each edge, weighted, and added up at the other.

The softmax runs over the edges that come to a node, as an exponential over a sum of the same rows (arXiv:1710.10903,
arXiv:2105.14491). What is gathered by the receiving end is the query; what is gathered by the other is key and value.
"""

from collections.abc import Hashable, Iterator

from . import operations
from .flow import Effect, Flow, Sources
from .operations import Op

WEIGHTS = Effect.EXPONENTIATED | Effect.SOFTMAXED
ENDS = ("layer", "stream", "attention", "input")
"""Kinds of origin at which a way back through the edges ends."""
Index = Hashable
"""The numbers that rows are gathered by; equal for views of the same ones."""


def read_edges(flow: Flow, op: Op) -> tuple[tuple[Sources, ...], tuple[int, ...]] | None:
    """Return the sources of query, key and value, and the operands, of rows that are added up by weight; else ``None``.

    Without a layer that is gathered by the receiving end the weights are no attention of it.
    """
    index = next((value for value in op.inputs if value in flow.tape.counts), None)
    factors = _find_factors(flow, op.inputs[-1])
    if index is None or factors is None:
        return None
    weights, values = factors
    query: Sources = {}
    key: Sources = {}
    for origin, is_query in _list_scored(flow, weights, _name_index(flow, index)):
        (query if is_query else key)[origin, 0] = Effect.NONE
    value: Sources = {(n, 0): Effect.NONE for n, _ in _list_gathered(flow, values) if flow.origins[n].kind == "layer"}
    return ((query, key, value), (weights, weights, values)) if query and key and value else None


def _find_factors(flow: Flow, value: int) -> tuple[int, int] | None:
    """Return the weights and the values whose product is a value, maybe in another shape."""
    while (number := flow.producer.get(value)) is not None:
        op = flow.tape.ops[number]
        carriers = [one for one in dict.fromkeys(op.inputs) if flow.read(one)]
        if op.name in operations.MULTIPLICATIONS and len(carriers) > 1:
            pairs = ((carriers[0], carriers[1]), (carriers[1], carriers[0]))
            return next((pair for pair in pairs if _is_weight(flow, pair[0]) and not _is_weight(flow, pair[1])), None)
        if len(carriers) != 1:
            return None
        value = carriers[0]
    return None


def _is_weight(flow: Flow, value: int) -> bool:
    return any(effects & WEIGHTS for effects in flow.read(value).values())


def _list_scored(flow: Flow, value: int, receiver: Index) -> Iterator[tuple[int, bool]]:
    """Yield the layers whose rows are compared in weights, and whether they are gathered by the receiving end.

    A layer on rows of both ends only scores them; one on rows of one end may stand behind the gathering.
    """
    for number, index in _list_gathered(flow, value):
        origin = flow.origins[number]
        if origin.kind != "layer":
            continue
        indices = {index} if index is not None else _list_indices(flow, origin.read_values[0])
        if receiver in indices and len(indices) > 1:
            yield from _list_scored(flow, origin.read_values[0], receiver)
        elif indices:
            yield number, receiver in indices


def _list_indices(flow: Flow, value: int, layers: int = 2) -> set[Index]:
    """Return what rows of a value were gathered by, before the last few layers."""
    indices = set[Index]()
    for number, index in _list_gathered(flow, value):
        if index is not None:
            indices.add(index)
        elif layers and flow.origins[number].kind == "layer":
            indices |= _list_indices(flow, flow.origins[number].read_values[0], layers - 1)
    return indices


def _list_gathered(flow: Flow, value: int) -> Iterator[tuple[int, Index | None]]:
    """Yield the origins that a value was computed from, and what their rows were gathered by, if they were."""
    ends = {origin.out: number for number, origin in enumerate(flow.origins) if origin.kind in ENDS}
    seen = set[tuple[int, Index | None]]()
    waiting: list[tuple[int, Index | None]] = [(value, None)]
    while waiting:
        step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        if step[0] in ends:
            yield ends[step[0]], step[1]
        elif step[0] in flow.producer:
            waiting += _step_back(flow, *step)


def _step_back(flow: Flow, value: int, index: Index | None) -> Iterator[tuple[int, Index | None]]:
    """Yield the operands of a value with what they were gathered by; rows that were added up belong to no edge."""
    op = flow.tape.ops[flow.producer[value]]
    before, numbers = op.inputs, [one for one in op.inputs[1:] if one in flow.tape.counts]
    if op.name in operations.GATHERS and numbers:
        before, index = op.inputs[:1], _name_index(flow, numbers[0])
    elif op.name in operations.SCATTERS:
        index = None
    yield from ((one, index) for one in before if flow.read(one))


def _name_index(flow: Flow, value: int) -> Index:
    """Return what numbers are, whatever their shape: a row of an input is the same row each time it is taken."""
    number = flow.producer.get(value)
    op = flow.tape.ops[number] if number is not None else None
    if op is None or not op.inputs:
        return value
    before = _name_index(flow, op.inputs[0])
    if op.name not in operations.SLICES:
        return before
    plain = [item for item in op.args[1:] if isinstance(item, int)]
    row = op.outputs.index(value) if op.name == "unbind" else plain[-1] if plain else str(op.args[1:])
    return before, row
