"""The last word on every role: dataflow outranks names; both verdicts are kept, and where they differ it shows."""

from collections import Counter, defaultdict
from dataclasses import replace

from ..records import Evidence, Layer
from ..vocabulary import Role
from .dataflow import Saying, Trace
from .slots import pattern_of

DECLARED: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles a model declares by its structure; what flows through a head looks like a feed-forward network."""


def judge(layers: tuple[Layer, ...], trace: Trace) -> tuple[Layer, ...]:
    """Return the layers with the role the trace gives them, where it gives one, and whether they were called."""
    verdicts = _verdicts(layers, trace)
    return tuple(_mark(_settle(layer, verdicts.get(layer.path)), trace) for layer in layers)


def _verdicts(layers: tuple[Layer, ...], trace: Trace) -> dict[str, Saying]:
    """Return the verdict on each layer; one that no forward reached shares that of its siblings in other blocks."""
    told = {layer.path: said for layer in layers if (said := trace.verdict(layer.path)) is not None}
    by_pattern: dict[str, Counter[Saying]] = defaultdict(Counter)
    for path, said in told.items():
        by_pattern[pattern_of(path)][said] += 1
    for layer in layers:
        siblings = by_pattern.get(pattern_of(layer.path))
        if layer.path not in told and siblings and not _was_called(layer, trace):
            role, says = siblings.most_common(1)[0][0]
            told[layer.path] = role, f"its siblings: {says}"
    return told


def _settle(layer: Layer, verdict: Saying | None) -> Layer:
    if verdict is None:
        return layer
    role, says = verdict
    flow = Evidence("dataflow", says if role == layer.role else f"{role}: {says}")
    if layer.role in DECLARED:
        return replace(layer, evidence=(*layer.evidence, flow))
    first, *rest = layer.evidence
    static = first if layer.role in (role, "other") else replace(first, says=f"{layer.role}: {first.says}")
    return replace(layer, role=role, evidence=(Evidence("dataflow", says), static, *rest))


def _mark(layer: Layer, trace: Trace) -> Layer:
    called = True if _was_called(layer, trace) else None
    bypassed = None if called else trace.bypassed.get(layer.path)
    layout = trace.layouts.get(layer.path)
    return replace(layer, called=False if bypassed else called, bypassed=bypassed, layout=layout)


def _was_called(layer: Layer, trace: Trace) -> bool:
    owner = layer.path.rpartition(".")[0] if layer.kind == "expert_parameter" else layer.path
    return owner in trace.called
