"""Rules for the ends of a model: what writes its output, and what carries one tower's output to another."""

from ...domain.scans import Layer
from ...domain.vocabulary import CONV_KINDS, Role
from .model_facts import SubModel
from .surroundings import Surroundings
from .tower_map import is_below

Verdict = tuple[Role, str, str]
"""(role, who says it, why)."""

PROJECTS = ("linear", "transposed_linear", *CONV_KINDS)


def declared_head_is_the_head(layer: Layer, around: Surroundings) -> Verdict | None:
    """What a model, or a model inside it, returns as its output embeddings or its classifier is its head."""
    inside = (model.heads for model in around.facts.sub_models)
    for path in around.facts.task_heads.union(around.facts.language_heads, *inside):
        if is_below(layer.path, path):
            return "head", "structure", f"the model declares {path!r} as its output"
    return None


def beyond_the_base_model_is_the_head(layer: Layer, around: Surroundings) -> Verdict | None:
    """A task model is its base model and a head, so what the base model does not hold is the head.

    Holds for models inside the model that declare an output too; a part with a configuration of its own is no head.
    """
    owners = [m for m in around.facts.sub_models if is_below(layer.path, m.path)]
    if not owners or around.towers.find_projector(layer.path) is not None:
        return None
    owner = owners[-1]
    roots = [m for m in owners if m.config_class == owner.config_class and m.base_path != m.path]
    for model in roots:
        beyond = is_below(model.base_path, model.path) and not is_below(layer.path, model.base_path)
        if beyond and _writes_output(model, around):
            return "head", "structure", f"the base model {model.base_path!r} does not hold it"
    return None


def _writes_output(model: SubModel, around: Surroundings) -> bool:
    """An outermost model writes the output; one inside it does if it generates, or declares what writes its own."""
    is_inside = any(other is not model and is_below(model.path, other.path) for other in around.facts.sub_models)
    return not is_inside or bool(model.heads) or bool(model.outputs)


def layer_between_towers_projects(layer: Layer, around: Surroundings) -> Verdict | None:
    """A layer of what joins the towers carries one tower's output to another.

    In repeated blocks it works as in any block, unless the projector is that list of blocks: one per depth.
    """
    if layer.kind not in PROJECTS:
        return None
    projector = around.towers.find_projector(layer.path)
    if projector is None or (layer.depth and (layer.block or "").rpartition(".")[0] != projector):
        return None
    return "projector", "structure", f"it stands in {projector!r}, which joins the towers"
