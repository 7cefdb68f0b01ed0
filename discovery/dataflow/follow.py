"""A pass over a tape: what each operation makes of the sources of what it reads."""

from collections.abc import Iterable
from typing import Any

from .flow import MOST_PARTS, MOST_SOURCES, Flow, Origin, Ranking, Sources, Way
from .operations import (
    ACTIVATIONS,
    ADDITIONS,
    CONTRACTIONS,
    CONVOLUTIONS,
    DECAYS,
    LOOKUPS,
    MULTIPLICATIONS,
    POOLINGS,
    RANKINGS,
    SLICES,
    SOFTMAXES,
    TRANSPOSITIONS,
    bind_multi_head,
    contracted,
    flips_last_dims,
    is_plain_index,
    pools_positions,
    softmax_dim,
)
from .streams import find_stream
from .tape import Op, Ref, Tape

MOST_HEADS = 128


def follow(tape: Tape) -> Flow:
    """Run over a tape once."""
    flow = Flow(tape, data=set(tape.inputs), weight_of=dict(tape.parameters))
    for value in sorted(tape.inputs - tape.counts):
        _add_origin(flow, Origin("input", -1, value, (), (), tape.root, "input"), (value,))
    for number, op in enumerate(tape.ops):
        _step(flow, number, op)
    return flow


def _step(flow: Flow, number: int, op: Op) -> None:
    for value in op.outputs:
        flow.producer[value] = number
    if not flow.data.isdisjoint(op.inputs):
        flow.data.update(op.outputs)
    if op.name == "scaled_dot_product_attention":
        _attend(flow, number, op)
    elif op.name == "multi_head_attention_forward":
        _attend_packed(flow, number, op)
    elif op.name in CONTRACTIONS or op.name in CONVOLUTIONS or op.name in ("embedding", "embedding_bag"):
        _contract(flow, number, op)
    else:
        _pass_on(flow, number, op)


# --- what makes new features ---------------------------------------------------------------------------------------


def _add_origin(flow: Flow, origin: Origin, outputs: Iterable[int]) -> None:
    key = (len(flow.origins), 0)
    flow.origins.append(origin)
    for value in outputs:
        flow.sources[value] = {key: Way.NONE}


def _contract(flow: Flow, number: int, op: Op) -> None:
    operands = contracted(op)
    weights = [value for value in operands if value in flow.weight_of and value not in flow.data]
    if len(operands) == 2 and not weights and all(flow.read(value) for value in operands):  # noqa: PLR2004
        _multiply(flow, number, op, operands)
    elif weights and len(operands) > 1:
        _apply(flow, number, op, _chosen_weight(op, weights), operands)
    else:
        _pass_on(flow, number, op)


def _chosen_weight(op: Op, weights: list[int]) -> int:
    """Of two parameters the second is the weight: ``linear(queries, weight)``."""
    return weights[0] if op.name == "__rmatmul__" else weights[-1]


def _apply(flow: Flow, number: int, op: Op, weight: int, operands: tuple[int, ...]) -> None:
    read = next(value for value in operands if value != weight) if len(set(operands)) > 1 else weight
    origin = Origin(
        kind="layer",
        op=number,
        out=op.outputs[0],
        reads=(flow.read(read),),
        read_values=(read,),
        site=op.site,
        name=op.name,
        layer=flow.weight_of[weight],
    )
    _add_origin(flow, origin, op.outputs)
    if _mixes_heads(flow, read, flow.tape.shapes[weight]):
        flow.sources[op.outputs[0]] = flow.read(read)


def _mixes_heads(flow: Flow, read: int, shape: tuple[int, ...]) -> bool:
    """A small square layer on the scores of an attention mixes its heads; they are scores still (arXiv:2003.02436)."""
    sources = [flow.origins[origin] for origin, _ in flow.read(read)]
    is_scores = all(s.kind == "product" and not _reads_product(flow, s) for s in sources)
    return bool(sources) and is_scores and len(set(shape)) == 1 and shape[0] <= MOST_HEADS


def _reads_product(flow: Flow, origin: Origin) -> bool:
    return any(flow.origins[source].kind == "product" for reads in origin.reads for source, _ in reads)


def _multiply(flow: Flow, number: int, op: Op, operands: tuple[int, ...]) -> None:
    """Two activations: an attention if one of them is a softmax over a product, else a product."""
    for weights, values in (operands, operands[::-1]):
        scores = _scores(flow, weights)
        if scores and not _scores(flow, values):
            _attend_softmaxed(flow, number, op, scores, values)
            return
    reads = tuple(flow.read(value) for value in operands)
    _add_origin(flow, Origin("product", number, op.outputs[0], reads, operands, op.site, op.name), op.outputs)


def _scores(flow: Flow, value: int) -> list[tuple[Origin, int]]:
    """Return the products that a value holds the softmax of."""
    found = ((flow.origins[origin], way) for (origin, _), way in flow.read(value).items())
    return [(origin, way) for origin, way in found if origin.kind == "product" and way & Way.SOFTMAXED]


def _attend_softmaxed(flow: Flow, number: int, op: Op, scores: list[tuple[Origin, int]], values: int) -> None:
    pairs = [origin.read_values[::-1] if way & Way.FLIPPED else origin.read_values for origin, way in scores]
    queries, keys = (_operand(flow, [pair[side] for pair in pairs]) for side in (0, 1))
    reads = (queries, keys, flow.read(values))
    name = f"softmax({scores[0][0].name}), {op.name}"
    origin = Origin("attention", number, op.outputs[0], reads, (*pairs[0], values), op.site, name)
    _add_origin(flow, origin, op.outputs)


def _operand(flow: Flow, values: list[int]) -> Sources:
    """Merge the operands of the products whose sum is softmaxed.

    A product with positions alone biases the scores (transfo-xl, deberta, conformers): what projects the positions
    is no query and no key, unless there is no other.
    """
    with_data = [value for value in values if value in flow.data]
    merged: Sources = {}
    for value in with_data or values:
        merged |= flow.read(value)
    return merged


def _attend(flow: Flow, number: int, op: Op) -> None:
    named = {name: item.value for name, item in op.kwargs.items() if isinstance(item, Ref)}
    given = [item.value for item in op.args if isinstance(item, Ref)]
    order = [*given, *(named[name] for name in ("query", "key", "value") if name in named)][:3]
    reads = tuple(flow.read(value) for value in order)
    origin = Origin("attention", number, op.outputs[0], reads, tuple(order), op.site, op.name)
    _add_origin(flow, origin, op.outputs)


def _attend_packed(flow: Flow, number: int, op: Op) -> None:
    """``multi_head_attention_forward`` applies the weights it is given: packed, or one for each operand."""
    given = bind_multi_head(op)
    operands = [given[name] for name in ("query", "key", "value")]
    names = ("in_proj_weight",) * 3 if given.get("in_proj_weight") in flow.weight_of else _SEPARATE
    reads: list[Sources] = []
    for operand, name in zip(operands, names, strict=True):
        weight = given.get(name)
        reads.append(flow.read(operand))
        if weight is not None and weight in flow.weight_of:
            _apply(flow, number, op, weight, (operand, weight))
            reads[-1] = dict(flow.read(op.outputs[0]))
    attention = Origin("attention", number, op.outputs[0], tuple(reads), tuple(operands), op.site, op.name)
    _add_origin(flow, attention, op.outputs[:1])
    if given.get("out_proj_weight") in flow.weight_of:
        _apply(flow, number, op, given["out_proj_weight"], (op.outputs[0], given["out_proj_weight"]))


_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


# --- what passes features on ----------------------------------------------------------------------------------------


def _pass_on(flow: Flow, number: int, op: Op) -> None:
    if not op.inputs:
        return
    sources = _merged(flow, op)
    _keep_weights(flow, op)
    if not sources:
        return
    stream = find_stream(flow, number, op) if op.name in ADDITIONS else None
    if stream is None and len(sources) > MOST_SOURCES:
        stream = Origin("stream", number, op.outputs[0], ({}, sources), (op.inputs[0],) * 2, op.site, op.name)
    if stream is not None:
        _add_origin(flow, stream, op.outputs)
        return
    if op.name in RANKINGS or op.name in SOFTMAXES:
        _rank(flow, op, sources)
    way = _way_of(flow, op)
    for position, value in enumerate(op.outputs):
        if value not in flow.tape.counts:
            flow.sources[value] = _changed(flow, op, position, sources, way)
            _keep_base(flow, op, value)


def _merged(flow: Flow, op: Op) -> Sources:
    merged: Sources = {}
    for value in dict.fromkeys(op.inputs[:1] if op.name in LOOKUPS else op.inputs):
        for key, way in flow.read(value).items():
            merged[key] = _joined(merged[key], way) if key in merged else way
    return merged


def _joined(one: int, other: int) -> int:
    """Return the way of a source that came twice: pooled only if it never came whole (a norm divides by an average)."""
    return (one | other) & ~(Way.POOLED & (one ^ other))


def _keep_weights(flow: Flow, op: Op) -> None:
    """A view, cast or scaling of a parameter is still that parameter."""
    if flow.data.isdisjoint(op.inputs) or op.name in ("__getitem__", "index_select"):
        owner = next((flow.weight_of[value] for value in op.inputs if value in flow.weight_of), None)
        if owner is not None and (op.inputs[0] in flow.weight_of or flow.data.isdisjoint(op.inputs)):
            for value in op.outputs:
                flow.weight_of[value] = owner
                flow.data.discard(value)


def _keep_base(flow: Flow, op: Op, value: int) -> None:
    carriers = [v for v in op.inputs if v in flow.data]
    if len(carriers) == 1 and op.name not in SLICES and op.name not in CONTRACTIONS:
        flow.base[value] = flow.base.get(carriers[0], carriers[0])


def _way_of(flow: Flow, op: Op) -> int:
    if op.name in ACTIVATIONS:
        return Way.ACTIVATED | (Way.DECAYED if op.name in DECAYS else Way.NONE)
    if op.name in DECAYS:
        return Way.DECAYED
    if op.name in POOLINGS and pools_positions(op, flow.tape.shapes):
        return Way.POOLED
    if op.name in MULTIPLICATIONS and _is_gate(flow, op):
        return Way.MULTIPLIED
    if op.name in MULTIPLICATIONS and _is_decay(flow, op):
        return Way.DECAYED
    return Way.NONE


def _is_decay(flow: Flow, op: Op) -> bool:
    """A product scaled position by position by numbers that depend on no input: a decay fixed in advance."""
    fixed = [v for v in op.inputs if v not in flow.data and len(flow.tape.shapes[v]) > 1]
    products = (o for v in op.inputs for o, _ in flow.read(v) if flow.origins[o].kind == "product")
    return bool(fixed) and any(products)


def _is_gate(flow: Flow, op: Op) -> bool:
    read = [flow.read(value) for value in dict.fromkeys(op.inputs)]
    read = [sources for sources in read if any(flow.origins[origin].kind != "input" for origin, _ in sources)]
    return len(read) == 2 and read[0].keys().isdisjoint(read[1].keys())  # noqa: PLR2004


def _changed(flow: Flow, op: Op, position: int, sources: Sources, way: int) -> Sources:
    if op.name in SLICES:
        return _sliced(flow, op, position, sources)
    if op.name in TRANSPOSITIONS and flips_last_dims(op, flow.tape.shapes):
        return {key: known if known & Way.SOFTMAXED else known ^ Way.FLIPPED for key, known in sources.items()}
    if op.name in SOFTMAXES:
        return _softmaxed(flow, op, sources)
    if op.name == "glu":
        return _gated_halves(flow, sources)
    if op.name == "exp":
        return _exponentiated(flow, sources)
    return {key: known | way for key, known in sources.items()} if way else sources


def _exponentiated(flow: Flow, sources: Sources) -> Sources:
    """An exponential of scores is a softmax somebody normalises by hand; of anything else, a decay."""
    of_scores = Way.SOFTMAXED
    other = Way.ACTIVATED | Way.DECAYED
    is_scores = {key: flow.origins[key[0]].kind == "product" for key in sources}
    return {key: way | (of_scores if is_scores[key] else other) for key, way in sources.items()}


def _softmaxed(flow: Flow, op: Op, sources: Sources) -> Sources:
    """A softmax over the rows of a product attends with the columns."""
    dim, dims = softmax_dim(op), len(flow.tape.shapes[op.inputs[0]])
    flip = Way.FLIPPED if dim in (-2, dims - 2) and dims > 1 else Way.NONE
    return {key: (known | Way.SOFTMAXED) ^ flip for key, known in sources.items()}


def _sliced(flow: Flow, op: Op, position: int, sources: Sources) -> Sources:
    if op.name == "__getitem__" and is_plain_index(op.args[1]):
        return sources
    what = (op.name, position, str(op.args[1:]), str(op.kwargs))
    scanned = Way.SCANNED if op.name == "__getitem__" and _takes_one_position(op) else Way.NONE
    return {(o, _part(flow, o, part, what)): way | scanned for (o, part), way in sources.items()}


def _takes_one_position(op: Op) -> bool:
    index = op.args[1] if isinstance(op.args[1], tuple) else (op.args[1],)
    return len(index) > 1 and any(isinstance(item, int) and not isinstance(item, bool) for item in index[1:])


def _part(flow: Flow, origin: int, part: int, what: tuple[Any, ...]) -> int:
    """Return the number of a slice; one that is taken apart position by position has no parts that mean anything."""
    key = (part, *what)
    known = flow.parts.setdefault(origin, {})
    if key not in known and len(known) >= MOST_PARTS:
        return part
    return known.setdefault(key, len(known) + 1)


def _gated_halves(flow: Flow, sources: Sources) -> Sources:
    """``glu`` splits in two and multiplies one half by the activation of the other."""
    halves: Sources = {}
    for (origin, part), way in sources.items():
        halves[origin, _part(flow, origin, part, ("glu", 0))] = way | Way.MULTIPLIED
        halves[origin, _part(flow, origin, part, ("glu", 1))] = way | Way.MULTIPLIED | Way.ACTIVATED
    return halves


def _rank(flow: Flow, op: Op, sources: Sources) -> None:
    shape = flow.tape.shapes[op.inputs[0]]
    if shape and flow.layers(sources):
        flow.rankings.append(Ranking(sources, shape[-1], op.site, op.name))
