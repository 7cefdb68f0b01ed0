"""Layouts of weights: the split of fused projections, and the orientation of fused experts."""

from collections import defaultdict

import torch
from torch import Tensor

from ...domain.patterns import pattern_of
from .flow import Effect, Origin, Sources
from .graph import Graph, is_stack
from .operations import SLICES, TRANSPOSITIONS, VIEWS, Op, Ref

REPLAYED = SLICES | TRANSPOSITIONS | VIEWS
"""Operations that move features and change none."""
LARGEST = 1 << 22
"""Elements up to which the views of a projection are replayed."""
NAMES = {2: "halves", 3: "thirds"}


def find_layouts(graph: Graph) -> dict[str, str]:
    """Return the layout of fused projections and of fused experts.

    ``thirds`` and ``halves``: contiguous parts of one size; ``unequal``: contiguous parts of different sizes, as with
    fewer keys than queries; ``interleaved``: the parts alternate, head by head or feature by feature. Experts are
    ``out_in`` or ``in_out``.
    """
    by_pattern: dict[str, str | None] = {}
    layouts: dict[str, str] = {}
    for number, origin in enumerate(graph.flow.origins):
        for source, parts in fused_in(origin).items():
            layer = graph.records[source]
            if layer is None:
                continue
            pattern = pattern_of(layer.path)
            if pattern not in by_pattern:
                by_pattern[pattern] = split_of(graph, source, number, parts)
            if (layout := by_pattern[pattern]) is not None:
                layouts[layer.path] = layout
    return layouts | find_expert_layouts(graph)


def fused_in(origin: Origin) -> dict[int, list[set[int]]]:
    """Return, for each layer that serves several operands of an origin by disjoint parts, those parts."""
    by_source: dict[int, list[set[int]]] = defaultdict(list)
    for operand in _operands(origin):
        parts: dict[int, set[int]] = defaultdict(set)
        for source, part in operand:
            parts[source].add(part)
        for source, numbers in parts.items():
            by_source[source].append(numbers)
    several = {source: groups for source, groups in by_source.items() if len(groups) > 1}
    return {s: groups for s, groups in several.items() if sum(map(len, groups)) == len(set[int]().union(*groups))}


def _operands(origin: Origin) -> list[Sources]:
    """Return query, key and value of an attention; of a layer, the activated and the plain factor of its input."""
    if origin.kind == "attention":
        return list(origin.reads)
    if origin.kind != "layer":
        return []
    both = Effect.MULTIPLIED | Effect.ACTIVATED
    reads = origin.reads[0].items()
    return [{key: e for key, e in reads if e & both == factor} for factor in (both, Effect.MULTIPLIED)]


def split_of(graph: Graph, source: int, reader: int, parts: list[set[int]]) -> str | None:
    """Return the layout of a fused projection, or ``None`` if a part's features are unknown."""
    origin = graph.flow.origins[source]
    ops = graph.flow.tape.ops[origin.op + 1 : graph.flow.origins[reader].op]
    if any(op.name == "glu" and source in {o for o, _ in graph.flow.read(op.inputs[0])} for op in ops):
        return NAMES[2]
    features = features_of_parts(graph, source, ops, set[int]().union(*parts))
    groups = [set[int]().union(*(features.get(part, ()) for part in group)) for group in parts]
    if not all(groups):
        return None
    if any(max(group) - min(group) + 1 != len(group) for group in groups):
        return "interleaved"
    return NAMES[len(groups)] if len(set(map(len, groups))) == 1 else "unequal"


def features_of_parts(graph: Graph, source: int, ops: list[Op], wanted: set[int]) -> dict[int, list[int]]:
    """Return the features in each wanted part, by replaying the views of a layer's output on feature numbers."""
    flow, layer = graph.flow, graph.records[source]
    origin = flow.origins[source]
    shape = flow.tape.shapes[origin.out]
    if torch.Size(shape).numel() > LARGEST:
        return {}
    dim = 1 if layer is not None and layer.kind.startswith("conv") and len(shape) > 1 else len(shape) - 1
    numbers = torch.arange(shape[dim], dtype=torch.int32, device="cpu")
    numbers = numbers.view([-1 if position == dim else 1 for position in range(len(shape))]).expand(shape).contiguous()
    replayed: dict[int, Tensor] = {origin.out: numbers}
    features: dict[int, list[int]] = {}
    for op in ops:
        if op.name in REPLAYED and op.inputs and op.inputs[0] in replayed and len(set(op.inputs)) == 1:
            for value, tensor in zip(op.outputs, replay(op, replayed), strict=False):
                replayed[value] = tensor
                part = next(iter(flow.read(value)), (source, -1))[1]
                if part in wanted and part not in features:
                    features[part] = torch.bincount(tensor.reshape(-1)).nonzero().flatten().tolist()
    return features


def replay(op: Op, known: dict[int, Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs of a view of known values; none where it does not fit them."""
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


def find_expert_layouts(graph: Graph) -> dict[str, str]:
    """Return the orientation of stacks of matrices by the dimension read; a square one has that of its module."""
    layouts: dict[str, str] = {}
    pairs = zip(graph.flow.origins, graph.records, strict=True)
    stacks = [(origin, layer) for origin, layer in pairs if layer and is_stack(layer)]
    for origin, layer in stacks:
        first, second = layer.shape[1:]
        read = set(graph.flow.tape.shapes[origin.read_values[0]][-2:])
        if first != second and (first in read) != (second in read):
            layouts[layer.path] = "in_out" if first in read else "out_in"
    of_module = {path.rpartition(".")[0]: layout for path, layout in layouts.items()}
    beside = {layer.path: of_module.get(layer.path.rpartition(".")[0]) for _, layer in stacks}
    return {path: layout for path, layout in beside.items() if layout} | layouts
