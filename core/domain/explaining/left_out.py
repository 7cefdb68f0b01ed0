"""Why a preset does not adapt a layer, in words."""

from dataclasses import dataclass

from ..layers import Layer
from ..mappings import Mapping
from ..presets import ADAPTABLE_KINDS
from ..scans import Proposal
from ..vocabulary import EVERYTHING, RANK, Role, Tower

_NEVER: dict[Role, str] = {
    "head": "an output head is left as it is, or trained in full (modules_to_save) where it was made for a task",
    "moe.router": "a router decides which experts run: an adapter there changes which, so none is proposed",
    "norm": "a norm has no matrix that LoRA could change; LN_TUNING trains norms",
    "embedding.token": "a table of tokens is left alone; new tokens need modules_to_save",
    "embedding.position": "a table of positions is left alone",
    "mixer.state": "the inner state of a mixer is left alone",
    "conv.depthwise": "a depthwise convolution mixes no channels",
}
"""Roles that no preset adapts (``presets.NEVER``), with the reason."""
_ADDED = (
    "it is outside what the blocks compute (patches, conditions, projectors, modulation): preset 'everything' adds it"
)


@dataclass(frozen=True, slots=True)
class Adapted:
    """The layers that the presets of a model adapt.

    Attributes:
        towers: Towers that get adapters by any preset but ``everything``.
        everything: Paths that ``everything`` adapts.
        inside: Starts of the paths of parts of an ``nn.MultiheadAttention``, which is adapted as a whole.
    """

    towers: frozenset[Tower]
    everything: frozenset[str]
    inside: tuple[str, ...]


def explain_left_out(layer: Layer, offer: Mapping | Proposal, adapted: Adapted) -> str:
    """Return why a mapping or a proposal of LoRA does not adapt a layer: the first cause that holds."""
    return (
        _explain_impossible(layer, adapted)
        or _NEVER.get(layer.role, "")
        or _explain_place(layer, offer, adapted)
        or f"its targets are others: {_describe_rule(offer)}"
    )


def _explain_impossible(layer: Layer, adapted: Adapted) -> str:
    """Return why no adapter can be put on a layer, or would learn nothing there; empty if one can."""
    causes = {
        f"an adapter on it would be without effect: its weight is read at {layer.bypassed}, without calling it": (
            layer.bypassed
        ),
        f"an adapter on it may be without effect: a fused kernel reads its weight at {layer.kernel}": layer.kernel,
        f"an adapter on it would learn nothing: {layer.proof or 'it received no gradient'}": layer.live is False,
        "it is a part of an nn.MultiheadAttention, which is adapted as a whole": layer.path.startswith(adapted.inside),
        layer.misfit or "": layer.misfit,
        f"there is no adapter for its kind, {layer.kind}": (
            layer.kind not in ADAPTABLE_KINDS and layer.role not in _NEVER
        ),
        f"its {layer.groups} groups do not divide the rank {RANK}": RANK % layer.groups,
    }
    return next((why for why, holds in causes.items() if holds), "")


def _explain_place(layer: Layer, offer: Mapping | Proposal, adapted: Adapted) -> str:
    """Return why a layer is left out for where it is; empty if its place is adapted."""
    if offer.preset == EVERYTHING:
        return "it gets no adapter by any preset" if layer.path not in adapted.everything else ""
    if layer.tower not in adapted.towers:
        why = next((reason for reason in offer.reasons if "left alone" in reason), "")
        return f"it is in the {layer.tower} tower: {why}" if why else f"the {layer.tower} tower gets no adapters"
    if layer.role in {"embedding.patch", "embedding.condition", "modulation", "projector"}:
        return _ADDED
    is_outside = not any(name.isdecimal() for name in layer.path.split("."))
    if is_outside and "only layers in the repeated blocks are adapted" in offer.reasons:
        return "only layers in the repeated blocks are adapted, and it is outside"
    return ""


def _describe_rule(offer: Mapping | Proposal) -> str:
    """Return the layers that a preset adapts, by its reasons."""
    facts = ("left out", "left alone", "only ")
    said = [
        reason
        for reason in offer.reasons
        if not reason.startswith(facts) and not reason.endswith(("layers)", "layer)"))
    ]
    return said[0] if said else ", ".join(offer.spec.list_targets()) or "none"
