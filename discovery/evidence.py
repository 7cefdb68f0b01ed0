"""The last word on every role: dataflow outranks names; both verdicts are kept, and where they differ it shows."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

from ..domain.layers import Evidence, Layer
from ..domain.vocabulary import Role, Tower
from .dataflow import Trace, Verdict

DECLARED: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles a model declares by its structure; what flows through a head looks like a feed-forward network."""


NAMED_FOR = ("attention.", "mixer.", "mlp.")


def judge(layers: tuple[Layer, ...], trace: Trace) -> tuple[Layer, ...]:
    """Return the layers with the role the trace gives them, where it gives one, and whether they were called."""
    verdicts = _verdicts(layers, trace)
    filled = _filled(layers, verdicts)
    return tuple(_judged(layer, verdicts.get(layer.path) or _unmet(layer, filled, trace), trace) for layer in layers)


def _filled(layers: tuple[Layer, ...], verdicts: dict[str, Verdict]) -> set[tuple[str | None, Role]]:
    """Return the (block, role) that dataflow gave to some layer: no other layer of the block has it by its name."""
    return {(layer.block, verdicts[layer.path][0]) for layer in layers if layer.path in verdicts}


def _unmet(layer: Layer, filled: set[tuple[str | None, Role]], trace: Trace) -> Verdict | None:
    """A layer whose name promises what dataflow knows another one does."""
    is_named = layer.evidence[0].by == "names" and layer.depth and layer.role.startswith(NAMED_FOR)
    if not is_named or not _was_called(layer, trace) or (layer.block, layer.role) not in filled:
        return None
    return "other", f"another layer of its block is the {layer.role}"


def list_untraced(layers: tuple[Layer, ...]) -> tuple[Tower, ...]:
    """Return the towers no forward ran through: most of their weights in blocks were neither called nor told of."""
    seen: dict[Tower, list[bool]] = defaultdict(list)
    for layer in layers:
        if layer.depth and layer.role not in DECLARED:
            seen[layer.tower].append(layer.called is not None or layer.evidence[0].by == "dataflow")
    return tuple(sorted(tower for tower, reached in seen.items() if 2 * sum(reached) <= len(reached)))


def _judged(layer: Layer, verdict: Verdict | None, trace: Trace) -> Layer:
    was_called = _was_called(layer, trace)
    role, evidence = _settle(layer, verdict) if verdict else (layer.role, layer.evidence)
    if layer.path in trace.shared:
        evidence = (
            *evidence,
            Evidence("dataflow", f"shared x {trace.shared[layer.path]}: one weight for as many runs"),
        )
    elsewhere = trace.read_elsewhere.get(layer.path) if was_called else None
    if elsewhere:
        reader = elsewhere.kernel or "another path"
        evidence = (*evidence, Evidence("source", f"{reader} reads its weight at {elsewhere.where}"))
    bypassed = None if was_called else trace.bypassed.get(layer.path, layer.bypassed)
    return replace(
        layer,
        role=role,
        evidence=evidence,
        called=True if was_called else False if bypassed else None,
        bypassed=bypassed,
        kernel=f"{elsewhere.kernel} at {elsewhere.where}" if elsewhere and elsewhere.kernel else None,
        layout=trace.layouts.get(layer.path),
    )


def _verdicts(layers: tuple[Layer, ...], trace: Trace) -> dict[str, Verdict]:
    """Return the verdict on each layer; one that no forward reached shares that of its siblings in other blocks."""
    told = {layer.path: said for layer in layers if (said := trace.verdict(layer.path)) is not None}
    by_pattern: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for path, said in told.items():
        by_pattern[_alike(path)][said] += 1
    for layer in layers:
        siblings = by_pattern.get(_alike(layer.path))
        if layer.path not in told and siblings and not _was_called(layer, trace):
            role, says = siblings.most_common(1)[0][0]
            told[layer.path] = role, f"its siblings: {says}"
    return told


def _alike(path: str) -> str:
    """Return a path with every number in it replaced: ``expert_3`` stands beside ``expert_4``."""
    return re.sub(r"\d+", "*", path)


def _settle(layer: Layer, verdict: Verdict) -> tuple[Role, tuple[Evidence, ...]]:
    """Return the role and the evidence, what decided first; a verdict that lost says what it would have said."""
    role, says = verdict
    is_no_head = layer.role == "head" and role == "embedding.patch"  # a base model may hold less than its class does
    if layer.role in DECLARED and not is_no_head:
        return layer.role, (*layer.evidence, Evidence("dataflow", says if role == layer.role else f"{role}: {says}"))
    first, *rest = layer.evidence
    static = first if layer.role in (role, "other") else replace(first, says=f"{layer.role}: {first.says}")
    return role, (Evidence("dataflow", says), static, *rest)


def _was_called(layer: Layer, trace: Trace) -> bool:
    owner = layer.path.rpartition(".")[0] if layer.kind == "expert_parameter" else layer.path
    return owner in trace.called
