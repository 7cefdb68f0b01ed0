"""transformers: a model type or a config object -> the model a user would load, on meta, without weights."""

import copy
from typing import TYPE_CHECKING

import torch

from ...errors import ScanFailed, UnknownArchitecture
from ..words import read_facts
from . import explained

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def list_names() -> list[str]:
    """Return every model type the installed transformers knows, sorted."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return sorted(CONFIG_MAPPING_NAMES)


def build(model_type: str) -> "PreTrainedModel":
    """Build the model of a type's default config on the meta device, at full depth.

    Raises:
        UnknownArchitecture: If transformers has no such model type.
        ScanFailed: If its default config does not build.
    """
    from transformers import AutoConfig

    known = list_names()
    if model_type not in known:
        raise UnknownArchitecture(model_type, known, "List what is known with: loradar list transformers")
    with explained(f"transformers:{model_type}"):
        config = AutoConfig.for_model(model_type)
    return build_config(config, model_type)


def build_config(config: "PreTrainedConfig", model_type: str | None = None) -> "PreTrainedModel":
    """Build the model of a config object on the meta device; the config is left as it was.

    Raises:
        ScanFailed: If no model class takes the config, or the config does not build.
    """
    model_type = model_type or config.model_type
    model_class = _task_class(model_type)
    with explained(f"transformers:{model_type}"), torch.device("meta"):
        return model_class(copy.deepcopy(config))


def _task_class(model_type: str) -> "type[PreTrainedModel]":
    """Return the class a user would load a checkpoint of this type with, by ``data/transformers.toml``."""
    import transformers
    from transformers.models.auto import modeling_auto

    for mapping_name in read_facts("transformers.toml")["tasks"]:
        entry = getattr(modeling_auto, mapping_name, {}).get(model_type)
        if entry is not None:
            class_name = entry if isinstance(entry, str) else entry[0]
            with explained(f"transformers:{model_type}"):
                found: type[PreTrainedModel] = getattr(transformers, class_name)
            return found
    message = f"transformers:{model_type} has no model class of its own: it configures a part of another model."
    raise ScanFailed(message, reference=f"transformers:{model_type}")
