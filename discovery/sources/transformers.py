"""transformers: the model a user would load for a model type or a config object, on meta, without weights."""

import copy
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ...errors import ScanFailed, UnknownArchitecture
from .recipes import Change, Recipe, explained, find_override
from .transformers_parts import build_part, find_task_class, find_written_default

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


SECTIONS = "mrope_section"
"""Numbers of a head's rotations that turn with time, height and width."""


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
    return find_recipe(model_type).build_on_meta()


def find_recipe(model_type: str) -> Recipe:
    """Return the recipe of a model type: its default config, completed.

    Raises:
        UnknownArchitecture: If transformers has no such model type.
        ScanFailed: If its default config does not build.
    """
    from transformers import AutoConfig

    known = list_names()
    if model_type not in known:
        raise UnknownArchitecture(model_type, known, "List what is known with: loradar list transformers")
    override = find_override("transformers", model_type)
    override.check(f"transformers:{model_type}")
    with explained(f"transformers:{model_type}"):
        config = AutoConfig.for_model(model_type, **copy.deepcopy(override.config))
        _add_sections(config)
    return _recipe(config, model_type, override.find_class())


def _add_sections(config: "PreTrainedConfig") -> None:
    """Add the rotary sections that only the model code has by default to a config, where they can be changed."""
    for part in vars(config).values():
        if hasattr(part, "sub_configs"):
            _add_sections(part)
    rope = vars(config).get("rope_parameters") or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict) and kind.get("rope_type") == "default"]
    default = find_written_default(type(config), SECTIONS) if kinds else None
    for kind in kinds:
        if default is not None:
            kind.setdefault(SECTIONS, default)


def make_config(model_type: str, settings: dict[str, Any]) -> Any:
    """Return a config object of a type with these settings.

    Raises:
        ScanFailed: If the type does not take them.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with explained(f"transformers:{model_type}"):
        config = CONFIG_MAPPING[model_type].from_dict(settings)
        _add_sections(config)
    return config


def build_config(config: "PreTrainedConfig", model_type: str | None = None) -> nn.Module:
    """Build the model of a config object on the meta device; the config is left unchanged.

    Raises:
        ScanFailed: If no model class takes the config, or the config does not build.
    """
    return _recipe(copy.deepcopy(config), model_type or config.model_type).build_on_meta()


def _recipe(config: Any, model_type: str, model_class: Any = None) -> Recipe:
    """Return the recipe of a config object that it may change."""
    reference = f"transformers:{model_type}"

    def make(settings: Any, change: Change) -> nn.Module:
        known_class = model_class or find_task_class(type(settings))
        model = known_class(change(settings)) if known_class else build_part(settings, change)
        if model is None:
            message = f"{reference} has no model class of its own: it configures a part of other models."
            raise ScanFailed(message, reference=reference)
        return cast("nn.Module", model)

    return Recipe(reference, config, make)
