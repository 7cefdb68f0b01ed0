"""Which classes of transformers stand for a model type or for a configuration class."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from ..words import read_facts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def find_task_class(model_type: str) -> "type[PreTrainedModel] | None":
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


def list_own_classes(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedModel]]":
    """Return the model classes that name this config class as their own, anywhere in its package."""
    from transformers import PreTrainedModel

    package = config_class.__module__.rpartition(".")[0]
    models = (item for item in _classes_in(package, "modeling_") if issubclass(item, PreTrainedModel))
    return [model for model in models if model.config_class is config_class]


def list_composites(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedConfig]]":
    """Return the config classes of the same package that hold this one as a sub-configuration."""
    from transformers import PreTrainedConfig

    package = config_class.__module__.rpartition(".")[0]
    configs = (item for item in _classes_in(package, "configuration_") if issubclass(item, PreTrainedConfig))
    return [config for config in configs if config_class in (config.sub_configs or {}).values()]


def _classes_in(package: str, start: str) -> Iterator[type]:
    """Yield the classes defined in the files of a package whose names start like this, in the order of the files."""
    for entry in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name.rpartition(".")[2].startswith(start):
            items = vars(import_module(entry.name)).values()
            yield from (item for item in items if isinstance(item, type) and item.__module__ == entry.name)
