"""Which classes of transformers stand for a model type or for a configuration class."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ..facts.data_files import read_facts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_Class = TypeVar("_Class")


def find_task_class(config_class: "type[PreTrainedConfig]") -> "type[PreTrainedModel] | None":
    """Return the class a user would load a checkpoint of this type with, by ``data/transformers.toml``.

    A class that takes this configuration whole comes before one that takes a part of it: a few mappings lend a type
    the class of another.
    """
    known = list(_mapped_classes(config_class.model_type))
    return next((model for model in known if model.config_class is config_class), next(iter(known), None))


def _mapped_classes(model_type: str) -> "Iterator[type[PreTrainedModel]]":
    import transformers
    from transformers.models.auto import modeling_auto

    for mapping_name in read_facts("transformers.toml")["tasks"]:
        entry = getattr(modeling_auto, mapping_name, {}).get(model_type)
        name = entry if entry is None or isinstance(entry, str) else entry[0]
        if name is not None and hasattr(transformers, name):  # a few mappings name classes that are not there
            yield getattr(transformers, name)


def list_own_classes(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedModel]]":
    """Return the model classes that name this config class as their own, anywhere in its package."""
    from transformers import PreTrainedModel

    models = _classes_beside(config_class, "modeling_", PreTrainedModel)
    return [model for model in models if model.config_class is config_class]


def list_composites(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedConfig]]":
    """Return the config classes of the same package that hold this one as a sub-configuration."""
    from transformers import PretrainedConfig  # the name that transformers 4 and 5 both have

    configs = _classes_beside(config_class, "configuration_", PretrainedConfig)
    return [config for config in configs if config_class in (config.sub_configs or {}).values()]


def find_written_default(config_class: "type[PreTrainedConfig]", name: str) -> Any:
    """Return the literal that model code takes where a dictionary of the config has no ``name``, if there is one.

    Code such as ``config.rope_parameters.get("mrope_section", [16, 24, 24])`` has a setting that no configuration
    shows. It is looked up in the source of the config's package.
    """
    package = config_class.__module__.rpartition(".")[0]
    call = re.compile(rf"""\.get\("{name}", (\[[\d, ]+\])\)""")
    for entry in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name.rpartition(".")[2].startswith("modeling_"):
            found = call.search(inspect.getsource(import_module(entry.name)))
            if found:
                return ast.literal_eval(found[1])
    return None


def _classes_beside(config_class: type, start: str, base: type[_Class]) -> Iterator[type[_Class]]:
    """Yield the classes derived from ``base`` in the files of a config class's package whose names start like this."""
    package = config_class.__module__.rpartition(".")[0]
    for entry in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name.rpartition(".")[2].startswith(start):
            items = vars(import_module(entry.name)).values()
            own = (item for item in items if isinstance(item, type) and item.__module__ == entry.name)
            yield from (item for item in own if issubclass(item, base))
