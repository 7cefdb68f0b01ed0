"""The last word on every role: dataflow outranks names; both verdicts are kept, and where they differ it shows."""

from collections import Counter, defaultdict
from dataclasses import replace

from ..records import Evidence, Layer
from ..vocabulary import Role, Tower
from .dataflow import Saying, Trace
from .slots import pattern_of

DECLARED: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles a model declares by its structure; what flows through a head looks like a feed-forward network."""


def judge(layers: tuple[Layer, ...], trace: Trace) -> tuple[Layer, ...]:
    """Return the layers with the role the trace gives them, where it gives one, and whether they were called."""
    verdicts = _verdicts(layers, trace)
    return tuple(_judged(layer, verdicts.get(layer.path), trace) for layer in layers)


def list_untraced(layers: tuple[Layer, ...]) -> tuple[Tower, ...]:
    """Return the towers no forward ran through: most of their weights in blocks were neither called nor told of."""
    seen: dict[Tower, list[bool]] = defaultdict(list)
    for layer in layers:
        if layer.depth and layer.role not in DECLARED:
            seen[layer.tower].append(layer.called is not None or layer.evidence[0].by == "dataflow")
    return tuple(sorted(tower for tower, reached in seen.items() if 2 * sum(reached) <= len(reached)))


def _judged(layer: Layer, verdict: Saying | None, trace: Trace) -> Layer:
    role, evidence = _settle(layer, verdict) if verdict else (layer.role, layer.evidence)
    was_called = _was_called(layer, trace)
    bypassed = None if was_called else trace.bypassed.get(layer.path)
    return replace(
        layer,
        role=role,
        evidence=evidence,
        called=True if was_called else False if bypassed else None,
        bypassed=bypassed,
        layout=trace.layouts.get(layer.path),
    )


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


def _settle(layer: Layer, verdict: Saying) -> tuple[Role, tuple[Evidence, ...]]:
    """Return the role and the evidence, what decided first; a verdict that lost says what it would have said."""
    role, says = verdict
    if layer.role in DECLARED:
        return layer.role, (*layer.evidence, Evidence("dataflow", says if role == layer.role else f"{role}: {says}"))
    first, *rest = layer.evidence
    static = first if layer.role in (role, "other") else replace(first, says=f"{layer.role}: {first.says}")
    return role, (Evidence("dataflow", says), static, *rest)


def _was_called(layer: Layer, trace: Trace) -> bool:
    owner = layer.path.rpartition(".")[0] if layer.kind == "expert_parameter" else layer.path
    return owner in trace.called
