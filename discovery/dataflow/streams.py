"""Residual streams: sums of a value and something computed from it by a layer."""

from .flow import Flow, Origin
from .tape import Op

PARALLEL_BRANCHES = 3
"""Branches that may be added to one value one after the other: attention, feed-forward, state space."""


def find_stream(flow: Flow, number: int, op: Op) -> Origin | None:
    """Return the stream that an addition makes, if it adds a value and something computed from it by a layer."""
    carriers = [value for value in dict.fromkeys(op.inputs) if flow.sources.get(value)]
    if len(carriers) != 2:  # noqa: PLR2004
        return None
    for skipped, branch in (carriers, carriers[::-1]):
        if any(flow.origins[origin].kind == "product" for origin, _ in flow.read(skipped)):
            continue  # scores and their bias
        if any(_made_after(flow, branch, start) and _reaches(flow, branch, start) for start in _starts(flow, skipped)):
            reads = (flow.read(skipped), flow.read(branch))
            return Origin("stream", number, op.outputs[0], reads, (skipped, branch), op.site, op.name)
    return None


def _starts(flow: Flow, skipped: int) -> list[int]:
    """Return what a branch may have been computed from: the value skipped, or the one its own sum began with.

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


def _made_after(flow: Flow, branch: int, start: int) -> bool:
    """Tell whether a branch holds new features; a product does only if it mixes what was skipped, as scores do not."""
    origins = (flow.origins[origin] for origin, _ in flow.read(branch))
    return any(o.out > start and (o.kind != "product" or flow.read(start) in o.reads) for o in origins)


def _reaches(flow: Flow, value: int, start: int) -> bool:
    """Tell whether ``value`` was computed from ``start``; only what was made since is looked at."""
    seen = {value}
    stack = [value]
    while stack:
        current = stack.pop()
        if current == start:
            return True
        producer = flow.producer.get(current)
        if producer is None or current < start:
            continue
        for earlier in flow.tape.ops[producer].inputs:
            if earlier >= start and earlier not in seen:
                seen.add(earlier)
                stack.append(earlier)
    return False
