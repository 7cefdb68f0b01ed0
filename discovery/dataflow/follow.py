"""Follow a tape: derive the sources of each operation's outputs from the sources of its inputs."""

from collections.abc import Iterable
from math import prod
from typing import Any

from . import operations
from .contractions import is_transposed, links_left, mixes_heads, mixes_positions
from .edges import read_edges
from .flow import MOST_PARTS, MOST_SOURCES, Effect, Flow, Origin, Ranking, Sources
from .operations import Op, Ref, Tape

PARALLEL_BRANCHES = 3
"""Branches that may be added to one value one after the other: attention, feed-forward, state space."""
_APPLIES_WEIGHT = operations.CONTRACTIONS | operations.CONVOLUTIONS | {"embedding", "embedding_bag"}


def follow(tape: Tape) -> Flow:
    """Return the flow of a tape, in one pass."""
    flow = Flow(tape, data=set(tape.inputs), weight_of=dict(tape.parameters))
    for value in sorted(tape.inputs - tape.counts):
        _add_origin(flow, Origin("input", -1, value, (), (), "", "input"), (value,))
    for number, op in enumerate(tape.ops):
        flow.producer.update(dict.fromkeys(op.outputs, number))
        if not flow.data.isdisjoint(op.inputs):
            flow.data.update(op.outputs)
        if op.name in operations.ATTENTIONS:
            attend(flow, number, op)
        elif op.name == "multi_head_attention_forward":
            attend_packed(flow, number, op)
        elif op.name in _APPLIES_WEIGHT:
            contract(flow, number, op)
        elif op.name in operations.SCATTERS:
            scatter(flow, number, op)
        elif op.name in operations.RECURRENCES:
            recur(flow, number, op)
        else:
            pass_on(flow, number, op)
    return flow


# --- operations that make new features --------------------------------------------------------------------------------


def _add_origin(flow: Flow, origin: Origin, outputs: Iterable[int]) -> None:
    sources = {(len(flow.origins), 0): Effect.NONE}
    flow.origins.append(origin)
    for value in outputs:
        flow.sources[value] = sources


def attend(flow: Flow, number: int, op: Op) -> None:
    """Record an attention that is one operation."""
    named = {name: item.value for name, item in op.kwargs.items() if isinstance(item, Ref)}
    given = [item.value for item in op.args if isinstance(item, Ref)]
    values = (*given, *(named[name] for name in ("query", "key", "value") if name in named))[:3]
    reads = tuple(map(flow.read, values))
    _add_origin(flow, Origin("attention", number, op.outputs[0], reads, values, op.site, op.name), op.outputs)


def attend_packed(flow: Flow, number: int, op: Op) -> None:
    """Record ``multi_head_attention_forward``, which applies its weights: packed, or one for each operand."""
    given = operations.bind_multi_head(op)
    operands = tuple(given[name] for name in ("query", "key", "value"))
    is_packed = given.get("in_proj_weight") in flow.weight_of
    names = ("in_proj_weight",) * 3 if is_packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    reads: list[Sources] = []
    for operand, name in zip(operands, names, strict=True):
        weight = given.get(name)
        reads.append(flow.read(operand))
        if weight is not None and weight in flow.weight_of:
            _apply(flow, number, op, weight, operand)
            reads[-1] = flow.read(op.outputs[0])
    attention = Origin("attention", number, op.outputs[0], tuple(reads), operands, op.site, op.name)
    _add_origin(flow, attention, op.outputs[:1])
    if given.get("out_proj_weight") in flow.weight_of:
        _apply(flow, number, op, given["out_proj_weight"], op.outputs[0])


def scatter(flow: Flow, number: int, op: Op) -> None:
    """Record rows that are added up: an attention if they are weighted by a softmax over the edges of a graph."""
    operands = read_edges(flow, op)
    if operands is None:
        pass_on(flow, number, op)
    else:
        origin = Origin("attention", number, op.outputs[0], *operands, op.site, f"exp, {op.name}")
        _add_origin(flow, origin, op.outputs)


def recur(flow: Flow, number: int, op: Op) -> None:
    """Record a recurrent network: a layer without a record of one weight, that reads inputs and the state before."""
    carriers = [value for value in dict.fromkeys(op.inputs) if flow.read(value)]
    if carriers:
        reads = (merge_sources(flow, op),)
        _add_origin(flow, Origin("layer", number, op.outputs[0], reads, (carriers[0],), op.site, op.name), op.outputs)


def contract(flow: Flow, number: int, op: Op) -> None:
    """Record a contraction: a layer if an operand is a parameter, a product or an attention if both have sources."""
    operands = operations.contracted(op)
    weights = [value for value in operands if value in flow.weight_of and value not in flow.data]
    if len(operands) == 2 and not weights and all(map(flow.read, operands)):  # noqa: PLR2004
        multiply(flow, number, op, operands)
    elif weights and len(operands) > 1:
        # Of two parameters the second is the weight: ``linear(queries, weight)``.
        weight = weights[0] if op.name == "__rmatmul__" else weights[-1]
        _apply(flow, number, op, weight, next((value for value in operands if value != weight), weight))
    else:
        pass_on(flow, number, op)


def _apply(flow: Flow, number: int, op: Op, weight: int, read: int) -> None:
    layer, reads = flow.weight_of[weight], (flow.read(read),)
    _add_origin(flow, Origin("layer", number, op.outputs[0], reads, (read,), op.site, op.name, layer), op.outputs)
    if mixes_heads(flow, read, flow.tape.shapes[weight]) or mixes_positions(flow, number, read):
        flow.sources[op.outputs[0]] = flow.read(read)


def multiply(flow: Flow, number: int, op: Op, operands: tuple[int, ...]) -> None:
    """Record a product of two activations: an attention if one of them is a softmax over a product."""
    for weights, values in (operands, operands[::-1]):
        scores = _scores(flow, weights)
        if scores and not _scores(flow, values):
            side = operands.index(weights)
            outer = Origin("product", number, op.outputs[0], (), operands, op.site, op.name)
            pairs = [_query_and_key(flow, inner, effects, outer, side) for inner, effects in scores]
            reads = (_merged_operands(flow, pairs, 0), _merged_operands(flow, pairs, 1), flow.read(values))
            name = f"softmax({scores[0][0].name}), {op.name}"
            origin = Origin("attention", number, op.outputs[0], reads, (*pairs[0], values), op.site, name)
            break
    else:
        reads_of_both = tuple(map(flow.read, operands))
        origin = Origin("product", number, op.outputs[0], reads_of_both, operands, op.site, op.name)
    _add_origin(flow, origin, op.outputs)


def _scores(flow: Flow, value: int) -> list[tuple[Origin, int]]:
    """Return the products whose softmax is a value, with their effects."""
    found = ((flow.origins[origin], effects) for (origin, _), effects in flow.read(value).items())
    return [(origin, effects) for origin, effects in found if origin.kind == "product" and effects & Effect.SOFTMAXED]


def _query_and_key(flow: Flow, scores: Origin, effects: int, outer: Origin, side: int) -> tuple[int, ...]:
    """Return the operands of scores, the query first: the key is the one whose positions the weights are summed over.

    Where the axes cannot be followed, the key is the operand over whose positions the softmax runs.
    """
    weights = outer.read_values[side]
    is_turned = effects & Effect.FLIPPED or is_transposed(flow, scores.out, weights)
    is_left = links_left(flow, scores, outer, side) if is_turned else None
    is_flipped = bool(effects & Effect.FLIPPED) if is_left is None else is_left
    return scores.read_values[::-1] if is_flipped else scores.read_values


def _merged_operands(flow: Flow, pairs: list[tuple[int, ...]], side: int) -> Sources:
    """Merge the operands of the products whose sum is softmaxed.

    A product with positions alone biases the scores (transfo-xl, deberta, conformers): the projection of the positions
    is no query and no key, unless there is no other.
    """
    values = [pair[side] for pair in pairs]
    merged: Sources = {}
    for value in [value for value in values if value in flow.data] or values:
        merged |= flow.read(value)
    return merged


# --- residual streams -------------------------------------------------------------------------------------------------


def find_stream(flow: Flow, number: int, op: Op) -> Origin | None:
    """Return the residual stream made by an addition: of a value and something a layer computed from it."""
    carriers = [value for value in dict.fromkeys(op.inputs) if flow.sources.get(value)]
    if len(carriers) != 2:  # noqa: PLR2004
        return None
    for skipped, branch in (carriers, carriers[::-1]):
        if any(flow.origins[origin].kind == "product" for origin, _ in flow.read(skipped)):
            continue  # scores and their bias
        if any(_is_new(flow, branch, start) and _reaches(flow, branch, start) for start in _starts(flow, skipped)):
            reads = (flow.read(skipped), flow.read(branch))
            return Origin("stream", number, op.outputs[0], reads, (skipped, branch), op.site, op.name)
    return None


def _starts(flow: Flow, skipped: int) -> list[int]:
    """Return the possible inputs of a branch: the value skipped, or the one its own sum began with.

    Parallel branches read one value and are added one after the other: ``x + attention(x) + mlp(x)``.
    """
    starts: list[int] = []
    value = flow.base.get(skipped, skipped)
    for _ in range(PARALLEL_BRANCHES):
        starts.append(value)
        stream = next((flow.origins[origin] for origin, _ in flow.read(value)), None)
        if stream is None or stream.kind != "stream" or stream.out != value:
            break
        value = flow.base.get(stream.read_values[0], stream.read_values[0])
    return starts


def _is_new(flow: Flow, branch: int, start: int) -> bool:
    """Return whether a branch holds features made after ``start``; of products only one of ``start``, as scores are."""
    origins = (flow.origins[origin] for origin, _ in flow.read(branch))
    return any(o.out > start and (o.kind != "product" or flow.read(start) in o.reads) for o in origins)


def _reaches(flow: Flow, value: int, start: int) -> bool:
    """Return whether ``value`` was computed from ``start``, by way of values made since."""
    seen, stack = {value}, [value]
    while stack:
        current = stack.pop()
        if current == start:
            return True
        producer = flow.producer.get(current)
        if producer is not None and current >= start:
            earlier = {v for v in flow.tape.ops[producer].inputs if v >= start} - seen
            seen |= earlier
            stack.extend(earlier)
    return False


# --- operations that pass features on ---------------------------------------------------------------------------------


def pass_on(flow: Flow, number: int, op: Op) -> None:
    """Record an operation that makes no new features: its outputs have the sources of its inputs."""
    if not op.inputs:
        return
    sources = merge_sources(flow, op)
    keep_weight(flow, op)
    if not sources:
        return
    stream = find_stream(flow, number, op) if op.name in operations.ADDITIONS else None
    if stream is None and len(sources) > MOST_SOURCES:
        stream = Origin("stream", number, op.outputs[0], ({}, sources), (op.inputs[0],) * 2, op.site, op.name)
    if stream is not None:
        _add_origin(flow, stream, op.outputs)
        return
    rank(flow, op, sources)
    effects = effects_of(flow, op)
    carriers = [value for value in op.inputs if value in flow.data]
    keeps_base = len(carriers) == 1 and op.name not in operations.SLICES and op.name not in operations.CONTRACTIONS
    for position, value in enumerate(op.outputs):
        if value not in flow.tape.counts:
            flow.sources[value] = transform(flow, op, position, sources, effects)
            if keeps_base:
                flow.base[value] = flow.base.get(carriers[0], carriers[0])


def rank(flow: Flow, op: Op, sources: Sources) -> None:
    """Record an operation that ranks the outputs of layers, and how many it chooses: 0 if it orders or weights all."""
    shape = flow.tape.shapes[op.inputs[0]]
    if (op.name in operations.RANKINGS or op.name in operations.SOFTMAXES) and shape and flow.layers(sources):
        chosen = int(op.name == "argmax" or (op.name == "max" and len(op.outputs) > 1))
        if op.name == "topk":
            chosen = flow.tape.shapes[op.outputs[0]][-1]
        flow.rankings.append(Ranking(sources, shape[-1], op.site, op.name, chosen))


def merge_sources(flow: Flow, op: Op) -> Sources:
    """Return the sources of all inputs; one that came twice is pooled only if it never came whole.

    A norm divides by an average.
    """
    merged: Sources = {}
    for value in dict.fromkeys(op.inputs[:1] if op.name in operations.LOOKUPS else op.inputs):
        for key, effects in flow.read(value).items():
            known = merged.get(key, effects)
            merged[key] = (known | effects) & ~(Effect.POOLED & (known ^ effects))
    return merged


def keep_weight(flow: Flow, op: Op) -> None:
    """Treat a view, cast or scaling of a parameter as that parameter."""
    is_constant = flow.data.isdisjoint(op.inputs)
    if is_constant or (op.name in ("__getitem__", "index_select") and op.inputs[0] in flow.weight_of):
        owner = next((flow.weight_of[value] for value in op.inputs if value in flow.weight_of), None)
        if owner is not None:
            flow.weight_of.update(dict.fromkeys(op.outputs, owner))
            flow.data.difference_update(op.outputs)


def effects_of(flow: Flow, op: Op) -> int:
    """Return the effects that an operation adds to all its sources."""
    if op.name in operations.ACTIVATIONS:
        return Effect.ACTIVATED | (Effect.DECAYED if op.name in operations.DECAYS else Effect.NONE)
    if op.name in operations.POOLINGS and operations.pools_positions(op, flow.tape.shapes):
        return Effect.POOLED
    if op.name in operations.MULTIPLICATIONS and is_gate(flow, op):
        spread(flow, op)
        return Effect.MULTIPLIED
    if op.name in operations.RUNNING_SUMS and {flow.origins[source].kind for source, _ in flow.read(op.inputs[0])} == {
        "product"
    }:
        return Effect.NONE  # the state of a causal linear attention, which forgets nothing
    is_decay = op.name in operations.DECAYS or (op.name in operations.MULTIPLICATIONS and is_fixed_decay(flow, op))
    return Effect.DECAYED if is_decay else Effect.NONE


def is_gate(flow: Flow, op: Op) -> bool:
    """Return whether a multiplication gates: two operands with sources of their own, inputs not counted."""
    read = [flow.read(value) for value in dict.fromkeys(op.inputs)]
    read = [sources for sources in read if any(flow.origins[origin].kind != "input" for origin, _ in sources)]
    return len(read) == 2 and read[0].keys().isdisjoint(read[1].keys())  # noqa: PLR2004


def spread(flow: Flow, op: Op) -> None:
    """Record the origins of the smaller factor of a product, as it was before it was expanded."""
    sizes = {v: prod(flow.tape.shapes[flow.base.get(v, v)]) for v in op.inputs if flow.read(v)}
    smaller = min(sizes, key=lambda value: sizes[value])
    if sizes[smaller] < max(sizes.values()):
        flow.spread.update(origin for origin, _ in flow.read(smaller))


def is_fixed_decay(flow: Flow, op: Op) -> bool:
    """Return whether a product is scaled position by position by numbers that depend on no input."""
    fixed = [v for v in op.inputs if v not in flow.data and len(flow.tape.shapes[v]) > 1]
    products = (o for v in op.inputs for o, _ in flow.read(v) if flow.origins[o].kind == "product")
    return bool(fixed) and any(products)


def transform(flow: Flow, op: Op, position: int, sources: Sources, effects: int) -> Sources:
    """Return the sources of one output of an operation."""
    if op.name in operations.SLICES:
        return slice_sources(flow, op, position, sources)
    if op.name in operations.TRANSPOSITIONS and operations.flips_last_dims(op, flow.tape.shapes):
        return {key: known if known & Effect.SOFTMAXED else known ^ Effect.FLIPPED for key, known in sources.items()}
    if op.name in operations.SOFTMAXES:
        return soften(flow, op, sources)
    if op.name == "glu":
        return split_glu(flow, sources)
    if op.name == "exp":
        return exponentiate(flow, sources)
    return {key: known | effects for key, known in sources.items()} if effects else sources


def soften(flow: Flow, op: Op, sources: Sources) -> Sources:
    """Return the sources of a softmax; one over the rows of a product attends with the columns."""
    dim, dims = operations.softmax_dim(op), len(flow.tape.shapes[op.inputs[0]])
    flip = Effect.FLIPPED if dim in (-2, dims - 2) and dims > 1 else Effect.NONE
    return {key: (effects | Effect.SOFTMAXED) ^ flip for key, effects in sources.items()}


def split_glu(flow: Flow, sources: Sources) -> Sources:
    """Return the sources of ``glu``, which splits in two and multiplies one half by the activation of the other."""
    halves: Sources = {}
    for (origin, part), effects in sources.items():
        halves[origin, _part(flow, origin, part, ("glu", 0))] = effects | Effect.MULTIPLIED
        halves[origin, _part(flow, origin, part, ("glu", 1))] = effects | Effect.MULTIPLIED | Effect.ACTIVATED
    return halves


def exponentiate(flow: Flow, sources: Sources) -> Sources:
    """Return the sources of an exponential: of scores, a softmax that the model normalises itself; else a decay."""
    added = {True: Effect.SOFTMAXED, False: Effect.ACTIVATED | Effect.EXPONENTIATED}
    return {key: effects | added[flow.origins[key[0]].kind == "product"] for key, effects in sources.items()}


def slice_sources(flow: Flow, op: Op, position: int, sources: Sources) -> Sources:
    """Return the sources of a slice, as parts of their origins; a slice of one position is scanned."""
    scanned = Effect.NONE
    if op.name == "__getitem__":
        if operations.is_plain_index(op.args[1]):
            return sources
        rest = op.args[1][1:] if isinstance(op.args[1], tuple) else ()
        if any(isinstance(item, int) and not isinstance(item, bool) for item in rest):
            scanned = Effect.SCANNED
    key = (op.name, position, str(op.args[1:]), str(op.kwargs))
    return {(o, _part(flow, o, part, key)): effects | scanned for (o, part), effects in sources.items()}


def _part(flow: Flow, origin: int, part: int, key: tuple[Any, ...]) -> int:
    """Return the number of a slice; an origin taken apart position by position has no more parts."""
    known = flow.parts.setdefault(origin, {})
    if (part, *key) not in known and len(known) >= MOST_PARTS:
        return part
    return known.setdefault((part, *key), len(known) + 1)
