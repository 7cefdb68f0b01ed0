"""transformers: a model type or a config object -> the model a user would load, on meta, without weights."""

import copy
from importlib import import_module
from importlib.util import find_spec
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
    reference = f"transformers:{model_type}"
    with explained(reference), torch.device("meta"):
        model_class = _task_class(model_type) or _part_class(type(config))
        if model_class is None:
            message = f"{reference} has no model class of its own: it configures a part of other models."
            raise ScanFailed(message, reference=reference)
        return model_class(copy.deepcopy(config))


def _task_class(model_type: str) -> "type[PreTrainedModel] | None":
    """Return the class a user would load a checkpoint of this type with, by ``data/transformers.toml``."""
    import transformers
    from transformers.models.auto import modeling_auto

    for mapping_name in read_facts("transformers.toml")["tasks"]:
        entry = getattr(modeling_auto, mapping_name, {}).get(model_type)
        if entry is not None:
            found: type[PreTrainedModel] = getattr(transformers, entry if isinstance(entry, str) else entry[0])
            return found
    return None


def _part_class(config_class: "type[PreTrainedConfig]") -> "type[PreTrainedModel] | None":
    """Return the class of a part no auto mapping knows, such as a text tower: the one that names this config class.

    Of several the most whole one stands for it, by ``data/transformers.toml``.
    """
    from transformers import PreTrainedModel

    modeling = config_class.__module__.replace(".configuration_", ".modeling_")
    if find_spec(modeling) is None:
        return None
    items = vars(import_module(modeling)).values()
    models: list[type[PreTrainedModel]] = [m for m in items if isinstance(m, type) and issubclass(m, PreTrainedModel)]
    own = [m for m in models if m.config_class is config_class and not m.__name__.endswith("PreTrainedModel")]
    return min(own, key=_wholeness, default=None)


def _wholeness(model_class: type) -> int:
    marks: list[str] = read_facts("transformers.toml")["part_classes"]
    return next((rank for rank, mark in enumerate(marks) if mark in model_class.__name__), len(marks))
