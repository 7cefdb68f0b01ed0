"""transformers: whether users load a model type by itself, and always with the same layers."""

from functools import cache
from typing import TYPE_CHECKING

from .transformers import list_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedConfig, PreTrainedModel


def why_not_exported(model_type: str) -> str | None:
    """Return why one entry of a table cannot serve all models of a type, or ``None`` if it can.

    A *composite* leaves the type of a model inside it free: other checkpoints have other layers. A *part* is in no auto
    mapping, so it is loaded only as a part of another model.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in list_names():
        return None
    declared = getattr(CONFIG_MAPPING[model_type], "sub_configs", None) or {}
    free = sorted(field for field, kind in declared.items() if takes_any_type(kind))
    if free:
        return f"its layers depend on the models that its configuration names ({', '.join(free)})"
    if model_type not in _list_loaded():
        return "no auto class loads it: it is a part of other models"
    return None


def takes_any_type(declared: object) -> bool:
    """Return whether a field of a configuration, declared with this class, takes a configuration of any type."""
    return getattr(declared, "__name__", "") == "AutoConfig"


def list_classes(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedModel]]":
    """Return the classes with which the auto classes load a configuration class, sorted by name."""
    import transformers

    entries = [mapping.get(config_class.model_type) for mapping in _list_mappings()]
    names = {name for entry in entries if entry for name in ([entry] if isinstance(entry, str) else entry)}
    classes = [getattr(transformers, name) for name in sorted(names) if hasattr(transformers, name)]
    return [model for model in classes if model.config_class is config_class]


@cache
def _list_loaded() -> frozenset[str]:
    """Return the model types in any auto mapping of models."""
    return frozenset(model_type for mapping in _list_mappings() for model_type in mapping)


def _list_mappings() -> "Iterator[dict[str, str | tuple[str, ...]]]":
    """Yield transformers' mappings from model types to names of classes."""
    from transformers.models.auto import modeling_auto

    for name, value in vars(modeling_auto).items():
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"):
            yield value
