"""transformers: a model type or a config object -> the model a user would load, on meta, without weights."""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import ScanFailed, UnknownArchitecture
from . import explained
from .classes import find_task_class
from .overrides import find_override, refuse_unbuilt
from .parts import build_part
from .unfilled import move_to_meta, unfilled

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
    return _build(config, model_type, override.find_class())


def build_config(config: "PreTrainedConfig", model_type: str | None = None) -> nn.Module:
    """Build the model of a config object on the meta device; the config is left as it was.

    Raises:
        ScanFailed: If no model class takes the config, or the config does not build.
    """
    return _build(copy.deepcopy(config), model_type or config.model_type)


def _build(config: Any, model_type: str, model_class: Any = None) -> nn.Module:
    """Build the model of a config object that nobody else holds."""
    reference = f"transformers:{model_type}"
    with explained(reference), unfilled():
        known_class = model_class or find_task_class(type(config))
        model: nn.Module | None = known_class(config) if known_class else build_part(config)
        if model is None:
            message = f"{reference} has no model class of its own: it configures a part of other models."
            raise ScanFailed(message, reference=reference)
        move_to_meta(model)
    return model
