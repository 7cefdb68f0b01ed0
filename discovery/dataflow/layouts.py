"""How a weight is laid out: which of a fused projection's features go where, and which way round experts stand."""

import torch
from torch import Tensor

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from .flow import Origin, Sources, Way
from .graph import Graph
from .operations import SLICES, TRANSPOSITIONS, VIEWS
from .tape import Op, Ref

_REPLAYED = SLICES | TRANSPOSITIONS | VIEWS
LARGEST = 1 << 22
"""Elements up to which the views of a projection are replayed."""
STACK = "expert_parameter"
NAMES = {2: "halves", 3: "thirds"}


def tell_layouts(graph: Graph) -> dict[str, str]:
    """Return the layout of fused projections and of fused experts.

    ``thirds`` and ``halves``: contiguous parts of one size; ``unequal``: contiguous parts of different sizes, as with
    fewer keys than queries; ``interleaved``: the parts alternate, head by head or feature by feature. Experts are
    ``out_in`` or ``in_out``.
    """
    found: dict[str, str | None] = {}
    layouts: dict[str, str] = {}
    for number, origin in enumerate(graph.flow.origins):
        for source, parts in _fused_in(origin).items():
            layer = graph.records[source]
            if layer is None:
                continue
            pattern = pattern_of(layer.path)
            if pattern not in found:
                found[pattern] = _split(graph, source, number, parts)
            if (layout := found[pattern]) is not None:
                layouts[layer.path] = layout
    return layouts | _expert_layouts(graph)


def _fused_in(origin: Origin) -> dict[int, list[set[int]]]:
    """Return, for each layer several parts of which go different ways in an origin, those parts."""
    if origin.kind == "attention":
        ways = [_parts(reads) for reads in origin.reads]
    elif origin.kind == "layer":
        multiplied = {key: way for key, way in origin.reads[0].items() if way & Way.MULTIPLIED}
        gates = {key: way for key, way in multiplied.items() if way & Way.ACTIVATED}
        ways = [_parts(gates), _parts({key: way for key, way in multiplied.items() if key not in gates})]
    else:
        return {}
    fused: dict[int, list[set[int]]] = {}
    for source in ways[0].keys() | ways[-1].keys() | ways[len(ways) // 2].keys():
        parts = [way[source] for way in ways if source in way]
        if len(parts) > 1 and not any(a & b for n, a in enumerate(parts) for b in parts[n + 1 :]):
            fused[source] = parts
    return fused


def _parts(reads: Sources) -> dict[int, set[int]]:
    parts: dict[int, set[int]] = {}
    for source, part in reads:
        parts.setdefault(source, set()).add(part)
    return parts


def _split(graph: Graph, source: int, reader: int, parts: list[set[int]]) -> str | None:
    origin = graph.flow.origins[source]
    ops = graph.flow.tape.ops[origin.op + 1 : graph.flow.origins[reader].op]
    if any(op.name == "glu" and source in {o for o, _ in graph.flow.sources.get(op.inputs[0], {})} for op in ops):
        return NAMES[2]
    features = _features_of_parts(graph, source, ops, set().union(*parts))
    groups = [set().union(*(features.get(part, ()) for part in group)) for group in parts]
    return _name_of(groups) if all(groups) else None


def _name_of(groups: list[set[int]]) -> str:
    if any(max(group) - min(group) + 1 != len(group) for group in groups):
        return "interleaved"
    return NAMES[len(groups)] if len({len(group) for group in groups}) == 1 else "unequal"


def _features_of_parts(graph: Graph, source: int, ops: list[Op], wanted: set[int]) -> dict[int, list[int]]:
    """Replay the views of a layer's output on the numbers of its features; return which features wanted parts hold."""
    flow = graph.flow
    origin = flow.origins[source]
    shape = flow.tape.shapes[origin.out]
    if torch.Size(shape).numel() > LARGEST:
        return {}
    numbers = _feature_numbers(shape, graph.records[source])
    replayed: dict[int, Tensor] = {origin.out: numbers}
    features: dict[int, list[int]] = {}
    for op in ops:
        if op.name in _REPLAYED and op.inputs and op.inputs[0] in replayed and len(set(op.inputs)) == 1:
            for value, tensor in zip(op.outputs, _replay(op, replayed), strict=False):
                replayed[value] = tensor
                part = next(iter(flow.read(value)), (source, -1))[1]
                if part in wanted and part not in features:
                    features[part] = torch.bincount(tensor.reshape(-1)).nonzero().flatten().tolist()
    return features


def _feature_numbers(shape: tuple[int, ...], layer: Layer | None) -> Tensor:
    is_channels_first = layer is not None and layer.kind.startswith("conv")
    dim = 1 if is_channels_first and len(shape) > 1 else len(shape) - 1
    numbers = torch.arange(shape[dim], dtype=torch.int32, device="cpu")
    return numbers.view([-1 if position == dim else 1 for position in range(len(shape))]).expand(shape).contiguous()


def _replay(op: Op, known: dict[int, Tensor]) -> tuple[Tensor, ...]:
    arguments = [_filled(item, known) for item in op.args]
    named = {name: _filled(item, known) for name, item in op.kwargs.items()}
    try:
        made = op.func(*arguments, **named)
    except (RuntimeError, TypeError, IndexError):
        return ()  # a view that does not fit integers, such as one into another dtype
    return (made,) if isinstance(made, Tensor) else tuple(made)


def _filled(item: object, known: dict[int, Tensor]) -> object:
    if isinstance(item, Ref):
        return known[item.value]
    if isinstance(item, tuple | list):
        return type(item)(_filled(part, known) for part in item)
    return item


def _expert_layouts(graph: Graph) -> dict[str, str]:
    """Tell which dimension of a stack is read; a square one goes by the others of its module."""
    layouts: dict[str, str] = {}
    stacks = [(o, x) for o, x in zip(graph.flow.origins, graph.records, strict=True) if x and x.kind == STACK]
    for origin, layer in stacks:
        first, second = layer.shape[1:]
        read = set(graph.flow.tape.shapes[origin.read_values[0]][-2:])
        if first != second and (first in read) != (second in read):
            layouts[layer.path] = "in_out" if first in read else "out_in"
    of_module = {path.rpartition(".")[0]: layout for path, layout in layouts.items()}
    beside = {layer.path: of_module.get(layer.path.rpartition(".")[0]) for _, layer in stacks}
    return {path: layout for path, layout in beside.items() if layout} | layouts
