"""Residual streams: sums of a value and something computed from it by a layer."""

from .flow import Flow, Origin
from .tape import Op


def find_stream(flow: Flow, number: int, op: Op) -> Origin | None:
    """Return the stream that an addition makes, if it adds a value and something computed from it by a layer."""
    carriers = [value for value in dict.fromkeys(op.inputs) if flow.sources.get(value)]
    if len(carriers) != 2:  # noqa: PLR2004
        return None
    for skipped, branch in (carriers, carriers[::-1]):
        if any(flow.origins[origin].kind == "product" for origin, _ in flow.read(skipped)):
            continue  # scores and their bias
        start = flow.base.get(skipped, skipped)
        if _made_after(flow, branch, start) and _reaches(flow, branch, start):
            reads = (flow.read(skipped), flow.read(branch))
            return Origin("stream", number, op.outputs[0], reads, (skipped, branch), op.site, op.name)
    return None


def _made_after(flow: Flow, branch: int, start: int) -> bool:
    origins = (flow.origins[origin] for origin, _ in flow.read(branch))
    return any(origin.out > start and origin.kind != "product" for origin in origins)


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
