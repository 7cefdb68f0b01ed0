"""Focus: the towers that proposals adapt, by the origin of the model's outputs and of its loss.

A model that generates text is adapted in its language tower, which every other tower serves. Any other model is adapted
in each tower: all of them lead to an output.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..domain.layers import Layer
from ..domain.vocabulary import Tower
from .dataflow import Trace
from .facts.model_facts import ModelFacts, SubModel
from .facts.towers import TowerMap, is_below

TOWER_ORDER: tuple[Tower, ...] = ("language", "vision", "audio", "main")
UNLISTED = "a listing shows no outputs"


@dataclass(frozen=True, slots=True)
class Focus:
    """The part of a model that proposals adapt.

    Attributes:
        why_text: Why the language tower alone is adapted, in words; empty if every tower is.
        apart: Prefixes of the parts that are trained apart from the model, such as a vocoder.
    """

    why_text: str = ""
    apart: tuple[str, ...] = ()


EVERY_TOWER = Focus()


def find_focus(facts: ModelFacts, towers: TowerMap, trace: Trace | None) -> Focus:
    """Return the focus of a model, by its declarations and by its forward, if one ran."""
    apart = tuple(model.path for model in facts.sub_models if model.is_apart)
    root = next((model for model in facts.sub_models if not model.path), None)
    why = _why_whole_writes(root, facts) if root else ""
    # A language tower that runs beside another and reads nothing of it, as that of a dual encoder, is no writer.
    apart_from = {other for tower, other in (trace.separate if trace else ()) if tower == "language"}
    if not why and apart_from.isdisjoint(("vision", "audio")):
        inside = [model for model in facts.sub_models if model is not root and _holds_language(model, towers)]
        why = _why_part_writes(inside or list(facts.sub_models[:1]), towers)
    return Focus(why, apart)


def _why_whole_writes(root: SubModel, facts: ModelFacts) -> str:
    """Return why a model as a whole writes text, as its class declares it; empty if it does not declare it."""
    if "language" in root.outputs:
        return "the model generates text"
    if facts.language_heads and not root.outputs:
        return "the model's output is a language head"
    return "the model with a head generates text" if _writes_with_head(root) else ""


def _why_part_writes(models: Sequence[SubModel], towers: TowerMap) -> str:
    """Return why one of the models of the language tower, or around it, writes text; empty if none does."""
    if any("language" in model.outputs or (model.heads and not model.outputs) for model in models):
        return "a model inside it generates text"
    if any(map(_writes_with_head, models)):
        return "a model inside it, with a head, generates text"
    decoders = [model for model in models if model.is_causal and towers.find(model.path) == "language"]
    return "its language model is a causal decoder" if decoders else ""


def _writes_with_head(model: SubModel) -> bool:
    """Return whether a model of several modalities is the base of one that generates text; BERT may generate, too."""
    return model.writes_with_head and len(model.towers) > 1


def _holds_language(model: SubModel, towers: TowerMap) -> bool:
    """Return whether a model is part of the language tower or holds it."""
    if towers.find(model.path) == "language":
        return True
    return any(tower == "language" and is_below(prefix, model.path) for prefix, tower in towers.prefixes)


def choose_in_focus(adaptable: Sequence[Layer], layers: Iterable[Layer], focus: Focus) -> tuple[Layer, ...]:
    """Return the layers to adapt: those of the towers in focus, in the blocks of each.

    A tower without blocks is adapted anywhere. What stands around the models in a user's own module is left alone,
    unless it has blocks or there is nothing else.
    """
    with_blocks = {layer.tower for layer in layers if layer.depth}
    free = [layer for layer in adaptable if not any(is_below(layer.path, prefix) for prefix in focus.apart)]
    found = [x for x in free or adaptable if x.depth or x.tower not in with_blocks]
    towers = {layer.tower for layer in found} & {*TOWER_ORDER}
    if focus.why_text and "language" in towers:
        towers = {"language"}
    elif "main" not in with_blocks:
        towers = towers - {"main"} or towers
    return tuple(layer for layer in found if layer.tower in towers)


def describe_focus(candidates: Sequence[Layer], layers: Iterable[Layer], focus: Focus) -> list[str]:
    """Return in words which towers are adapted, why, and which are left alone; nothing of a model with one tower."""
    chosen = {layer.tower for layer in candidates}
    adapted = [tower for tower in TOWER_ORDER if tower in chosen]
    others = sorted({layer.tower for layer in layers} - chosen)
    left = f"; left alone: {', '.join(others)}" if others else ""
    reasons = describe_apart(focus)
    if len(adapted) > 1:
        listed = f"{', '.join(adapted[:-1])} and {adapted[-1]}"
        return [f"the {listed} towers are adapted, because each leads to an output{left}", *reasons]
    if others:
        why = f", because {focus.why_text}" if focus.why_text and adapted == ["language"] else ""
        return [f"only the {adapted[0]} tower is adapted{why}{left}", *reasons]
    return reasons


def describe_apart(focus: Focus) -> list[str]:
    """Return a reason for each part that is left alone because it is trained apart from the model."""
    return [f"left alone: {prefix}, which is trained apart from the model" for prefix in focus.apart]
