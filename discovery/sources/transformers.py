"""transformers: a model type or a config object -> the model a user would load, on meta, without weights."""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import ScanFailed, UnknownArchitecture
from ..words import read_facts
from . import explained
from .overrides import find_override, refuse_unbuilt
from .parts import build_part, find_part_class
from .unfilled import move_to_meta, unfilled

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def list_names() -> list[str]:
    """Return every model type the installed transformers knows, sorted."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return sorted(CONFIG_MAPPING_NAMES)


def build(model_type: str) -> nn.Module:
    """Build the model of a type's default config on the meta device, at full depth.

    Where the default config does not build, or leaves a tower out, ``data/build_overrides.toml`` completes it.

    Raises:
        UnknownArchitecture: If transformers has no such model type.
        ScanFailed: If its default config does not build.
    """
    from transformers import AutoConfig

    known = list_names()
    if model_type not in known:
        raise UnknownArchitecture(model_type, known, "List what is known with: loradar list transformers")
    override = find_override("transformers", model_type)
    refuse_unbuilt(override, f"transformers:{model_type}")
    with explained(f"transformers:{model_type}"):
        config = AutoConfig.for_model(model_type, **copy.deepcopy(override.config))
    return _build(config, model_type, override.model_class)


def build_config(config: "PreTrainedConfig", model_type: str | None = None) -> nn.Module:
    """Build the model of a config object on the meta device; the config is left as it was.

    Raises:
        ScanFailed: If no model class takes the config, or the config does not build.
    """
    return _build(copy.deepcopy(config), model_type or config.model_type)


def _build(config: Any, model_type: str, class_name: str | None = None) -> nn.Module:
    """Build the model of a config object that nobody else holds."""
    import transformers

    reference = f"transformers:{model_type}"
    with explained(reference), unfilled():
        named = getattr(transformers, class_name) if class_name else None
        model_class = named or _task_class(model_type) or find_part_class(type(config))
        model: nn.Module | None = model_class(config) if model_class else build_part(config)
        if model is None:
            message = f"{reference} has no model class of its own: it configures a part of other models."
            raise ScanFailed(message, reference=reference)
        move_to_meta(model)
    return model


def _task_class(model_type: str) -> "type[PreTrainedModel] | None":
    """Return the class a user would load a checkpoint of this type with, by ``data/transformers.toml``."""
    import transformers
    from transformers.models.auto import modeling_auto

    for mapping_name in read_facts("transformers.toml")["tasks"]:
        entry = getattr(modeling_auto, mapping_name, {}).get(model_type)
        name = entry if entry is None or isinstance(entry, str) else entry[0]
        if name is not None and hasattr(transformers, name):  # a few mappings name classes that are not there
            found: type[PreTrainedModel] = getattr(transformers, name)
            return found
    return None
