"""The parts of a composite model: the models inside it that fields of its configuration describe.

A configuration leaves the type of a part free if it declares the field for any type (``AutoConfig``), or for none.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...domain.architectures import ModelPart, is_composite
from ..sources.transformers import takes_any_type
from .model_facts import ModelFacts, SubModel, is_configuration

ENDING = "_config"
"""End of the name of a field that holds a configuration."""


def list_parts(model: nn.Module, facts: ModelFacts) -> tuple[ModelPart, ...]:
    """Return the parts of a model, in the order of its configuration; none if the type of each is fixed."""
    config: Any = model.__dict__.get("config")
    if not is_configuration(config):
        return ()
    inside = [(sub, model.get_submodule(sub.path).__dict__.get("config")) for sub in facts.sub_models if sub.path]
    values = vars(config)
    fields = [name for name in dict.fromkeys([*_declared(config), *values]) if is_configuration(values.get(name))]
    parts = tuple(_describe(field, values[field], model, config, inside) for field in fields)
    return parts if is_composite(parts) else ()


def _declared(config: Any) -> dict[str, Any]:
    declared = getattr(type(config), "sub_configs", None)
    return declared if isinstance(declared, dict) else {}


def _describe(
    field: str, value: Any, model: nn.Module, config: Any, inside: Sequence[tuple[SubModel, Any]]
) -> ModelPart:
    """Return the part that a field describes, with the model it describes where that is found."""
    name = field.removesuffix(ENDING) or field
    declared = _declared(config).get(field)
    is_free = declared is None or takes_any_type(declared)
    sub = _find_model(name, value, inside)
    if sub is None:
        return ModelPart(name, value.model_type, is_free)
    is_bare = sub.base_path == sub.path and not sub.heads
    return ModelPart(name, value.model_type, is_free, sub.path, type(model.get_submodule(sub.path)).__name__, is_bare)


def _find_model(name: str, value: Any, inside: Sequence[tuple[SubModel, Any]]) -> SubModel | None:
    """Return the outermost model that keeps a configuration, else the only one of its class, or the one named so."""
    same = [sub for sub, config in inside if config is value]
    if same:
        return same[0]
    alike = [sub for sub, config in inside if type(config) is type(value)]
    outermost = [sub for sub in alike if not any(sub.path.startswith(f"{other.path}.") for other in alike)]
    words = set(name.split("_"))
    named = [sub for sub in outermost if words & set(sub.path.rpartition(".")[2].split("_"))]
    candidates = outermost if len(outermost) == 1 else named
    return candidates[0] if len(candidates) == 1 else None
