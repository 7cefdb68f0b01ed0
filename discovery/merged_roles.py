"""Evidence of roles: merge the roles from names with those from the trace, which outrank them.

Both verdicts are kept with a layer, so that a difference shows.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..domain.layers import UNCALLED, Evidence, Layer
from ..domain.vocabulary import Role, Tower
from .dataflow import Ends, Trace, Verdict
from .facts.misfits import CALLED_OTHERWISE, OWN_FORWARD
from .facts.model_facts import ModelFacts
from .facts.towers import is_below
from .names.heads import label_heads
from .names.surroundings import PROJECTOR_KINDS

DECLARED: frozenset[Role] = frozenset(
    {"head", "norm", "projector", "embedding.token", "embedding.position", "embedding.patch"}
)
"""Roles a model declares by its structure; the dataflow of a head looks like a feed-forward network."""

INNER = ("attention.", "mixer.", "moe.", "expert.")
RETURNED = "it leads to what the model returns"
NAMED_FOR = ("attention.", "mixer.", "mlp.")


def merge(layers: tuple[Layer, ...], trace: Trace) -> tuple[Layer, ...]:
    """Return the layers with the role the trace gives them, where it gives one, and whether they were called.

    A bare matrix that gets no role is no layer.
    """
    layers = _with_bare(layers, trace.bare)
    verdicts = _find_verdicts(layers, trace)
    taken = {(layer.block, verdicts[layer.path][0]) for layer in layers if layer.path in verdicts}
    bare = {layer.path for layer in trace.bare}
    merged = (_merge_layer(x, verdicts.get(x.path) or demote_if_taken(x, taken, trace), trace) for x in layers)
    return tuple(layer for layer in merged if layer.role != "other" or layer.path not in bare)


def label_traced_heads(
    layers: tuple[Layer, ...], ends: Ends, facts: ModelFacts, *, has_others: bool = False
) -> tuple[Layer, ...]:
    """Return the layers with the heads that the forward shows: those of a user's own module.

    Around a model of a library each layer that leads to the output is one; elsewhere only those that write it, because
    nothing shows which others were made anew. A library's task model without a head puts it into its base model. Where
    every layer writes the output, they are heads if there is another model before them (``has_others``).
    """
    if facts.library_models:
        return tuple(_label_fresh(layer, ends, facts) for layer in layers)
    projections = [x for x in layers if x.kind in PROJECTOR_KINDS]
    returned = _list_in(projections, ends.returned)
    is_model = returned == projections and not has_others
    is_headless = facts.has_base and "head" not in {layer.role for layer in layers}
    is_own = facts.architecture.library == "torch" and not facts.sub_models
    if is_model or not (is_headless or is_own):
        return layers
    compared = _list_in(projections, ends.compared) if is_own else []
    return label_heads(layers, [x for x in (*returned, *compared) if not _is_inner(x)], RETURNED, "dataflow")


def _list_in(layers: Iterable[Layer], paths: frozenset[str]) -> list[Layer]:
    return [layer for layer in layers if layer.path in paths]


def _label_fresh(layer: Layer, ends: Ends, facts: ModelFacts) -> Layer:
    """Return a layer made anew as a head if the model returns its output, and as another if that enters the blocks."""
    if layer.kind not in PROJECTOR_KINDS or not facts.is_fresh(layer.path) or _is_inner(layer):
        return layer
    if layer.path not in ends.entering:
        is_end = layer.role == "head" or (layer.path in ends.returned and not layer.depth)
        return label_heads((layer,), (layer,), RETURNED, "dataflow")[0] if is_end else layer
    if layer.role != "head":
        return layer
    return replace(layer, role="other", evidence=(Evidence("dataflow", "it leads into the blocks"), *layer.evidence))


def _is_inner(layer: Layer) -> bool:
    """Return whether the role of a layer, unless read from a name, shows that it is no head.

    That a layer is one of the experts is shown by a forward alone: without one, a class is named for them.
    """
    shown = ("dataflow",) if layer.role.startswith("expert.") else ("dataflow", "structure")
    return layer.role.startswith(INNER) and layer.evidence[0].by in shown


def _with_bare(layers: tuple[Layer, ...], bare: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers with bare matrices behind those of their owner, in place of an owner of no known kind."""
    beside: dict[str, list[Layer]] = defaultdict(list)
    for layer in bare:
        beside[layer.path.rpartition(".")[0]].append(layer)
    kept = [layer for layer in layers if not (layer.kind == "other" and layer.path in beside)]
    for owner, own in beside.items():
        before = [n for n, layer in enumerate(kept) if is_below(layer.path, owner)]
        place = before[-1] + 1 if before else len(kept)
        kept[place:place] = own
    return tuple(kept)


def demote_if_taken(layer: Layer, taken: set[tuple[str | None, Role]], trace: Trace) -> Verdict | None:
    """Return role ``other`` if the trace gave the role of this layer's name to another layer of the block."""
    is_named = layer.evidence[0].by == "names" and layer.depth and layer.role.startswith(NAMED_FOR)
    if not is_named or not _was_called(layer, trace) or (layer.block, layer.role) not in taken:
        return None
    return "other", f"another layer of its block is the {layer.role}"


def mark_unlearning(layers: tuple[Layer, ...], frozen: Mapping[str, str], trace: Trace | None) -> tuple[Layer, ...]:
    """Return the layers with those marked dead that cannot learn as the model is written, and those that never run.

    Dead are the frozen ones, and those that no gradient reaches in a traced forward unless a proof saw one arrive. What
    no forward calls stays unproven: other inputs may.
    """
    cut_off = trace.cut_off if trace else {}
    whole = trace if trace and trace.is_whole else None

    def mark(layer: Layer) -> Layer:
        by, says = "source", frozen.get(layer.path)
        if says is None and layer.live is not True:
            by, says = "dataflow", cut_off.get(layer.path) or cut_off.get(layer.module_path)
        if says is None:
            is_idle = layer.called is layer.live is None and whole and not whole.verdict(layer.path)
            return replace(layer, proof=UNCALLED) if is_idle else layer
        return replace(layer, live=False, proof=says, evidence=(*layer.evidence, Evidence(by, says)))

    return tuple(map(mark, layers))


def list_untraced(layers: tuple[Layer, ...]) -> tuple[Tower, ...]:
    """Return the towers no forward ran through: most of their layers in blocks were neither called nor traced."""
    seen: dict[Tower, list[bool]] = defaultdict(list)
    for layer in layers:
        if layer.depth and layer.role not in DECLARED:
            seen[layer.tower].append(layer.called is not None or layer.evidence[0].by == "dataflow")
    return tuple(sorted(tower for tower, traced in seen.items() if 2 * sum(traced) <= len(traced)))


def _merge_layer(layer: Layer, verdict: Verdict | None, trace: Trace) -> Layer:
    was_called = _was_called(layer, trace)
    role, evidence = _merge_roles(layer, verdict) if verdict else (layer.role, layer.evidence)
    if layer.path in trace.shared:
        runs = f"shared x {trace.shared[layer.path]}: one weight for as many runs"
        evidence = (*evidence, Evidence("dataflow", runs))
    elsewhere = trace.read_elsewhere.get(layer.path) if was_called else None
    if elsewhere:
        reader = elsewhere.kernel or "another path"
        evidence = (*evidence, Evidence("source", f"{reader} reads its weight at {elsewhere.where}"))
    bypassed = None if was_called else trace.bypassed.get(layer.path, layer.bypassed)
    misfit = layer.misfit
    if misfit == OWN_FORWARD and layer.path in trace.attentions:  # the run shows how it is called
        misfit = None if trace.attentions[layer.path] else CALLED_OTHERWISE
    return replace(
        layer,
        role=role,
        evidence=evidence,
        called=True if was_called else False if bypassed else None,
        bypassed=bypassed,
        kernel=f"{elsewhere.kernel} at {elsewhere.where}" if elsewhere and elsewhere.kernel else None,
        layout=trace.layouts.get(layer.path),
        misfit=misfit,
    )


def _find_verdicts(layers: tuple[Layer, ...], trace: Trace) -> dict[str, Verdict]:
    """Return the verdict on each layer; one that no forward reached shares that of its siblings in other blocks."""
    verdicts = {layer.path: verdict for layer in layers if (verdict := trace.verdict(layer.path)) is not None}
    by_pattern: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for path, verdict in verdicts.items():
        by_pattern[_open_numbers(path)][verdict] += 1
    for layer in layers:
        siblings = by_pattern.get(_open_numbers(layer.path))
        if layer.path not in verdicts and siblings and not _was_called(layer, trace):
            role, says = siblings.most_common(1)[0][0]
            verdicts[layer.path] = role, f"its siblings: {says}"
    return verdicts


def _open_numbers(path: str) -> str:
    """Return a path with every number in it replaced, so that ``expert_3`` is a sibling of ``expert_4``."""
    return re.sub(r"\d+", "*", path)


def _merge_roles(layer: Layer, verdict: Verdict) -> tuple[Role, tuple[Evidence, ...]]:
    """Return the role and the evidence, the deciding one first; a verdict that lost names the role it gave."""
    role, says = verdict
    is_no_head = layer.role == "head" and role == "embedding.patch"  # a base model may hold less than its class does
    attends = layer.role == "projector" and role.startswith("attention.")  # the tower still says what it stands in
    if layer.role in DECLARED and not is_no_head and not attends:
        return layer.role, (*layer.evidence, Evidence("dataflow", says if role == layer.role else f"{role}: {says}"))
    first, *rest = layer.evidence
    static = first if layer.role in (role, "other") else replace(first, says=f"{layer.role}: {first.says}")
    return role, (Evidence("dataflow", says), static, *rest)


def _was_called(layer: Layer, trace: Trace) -> bool:
    return layer.module_path in trace.called
