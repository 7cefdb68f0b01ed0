"""Classes of transformers for a configuration, and parts of models that no auto mapping knows.

Such a part (a text tower, a mask decoder, a connector) with model classes of its own is the largest of those that no
other class holds. One without is cut out of the model that holds it, as the largest module below it whose constructor
reads the part's configuration: a module that reads it is built by it.
"""

import ast
import copy
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from ...data import read_facts
from .recipes import Change, find_override

if TYPE_CHECKING:
    from types import FrameType

    from transformers import PreTrainedConfig, PreTrainedModel

_Class = TypeVar("_Class")


def find_task_class(config_class: "type[PreTrainedConfig]") -> "type[PreTrainedModel] | None":
    """Return the class a user would load a checkpoint of this type with, by ``data/transformers.toml``.

    A class that takes this configuration whole comes before one that takes a part of it: a few mappings lend a type
    the class of another.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    classes: list[type[PreTrainedModel]] = []
    for mapping_name in read_facts("transformers.toml")["tasks"]:
        entry = getattr(modeling_auto, mapping_name, {}).get(config_class.model_type)
        name = entry if entry is None or isinstance(entry, str) else entry[0]
        if name is not None and hasattr(transformers, name):  # a few mappings name classes that do not exist
            classes.append(getattr(transformers, name))
    return next((model for model in classes if model.config_class is config_class), next(iter(classes), None))


def list_own_classes(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedModel]]":
    """Return the model classes that name this config class as their own, anywhere in its package."""
    from transformers import PreTrainedModel

    models = _list_classes_beside(config_class, "modeling_", PreTrainedModel)
    return [model for model in models if model.config_class is config_class]


def list_composites(config_class: "type[PreTrainedConfig]") -> "list[type[PreTrainedConfig]]":
    """Return the config classes of the same package that hold this one as a sub-configuration."""
    from transformers import PretrainedConfig  # the name that transformers 4 and 5 both have

    configs = _list_classes_beside(config_class, "configuration_", PretrainedConfig)
    return [config for config in configs if config_class in (config.sub_configs or {}).values()]


def find_written_default(config_class: "type[PreTrainedConfig]", name: str) -> Any:
    """Return the literal that model code uses where a dictionary of the config has no ``name``, if there is one.

    Code such as ``config.rope_parameters.get("mrope_section", [16, 24, 24])`` has a setting that no configuration
    shows. It is searched in the source of the config's package.
    """
    call = re.compile(rf"""\.get\("{name}", (\[[\d, ]+\])\)""")
    for module in _import_beside(config_class, "modeling_"):
        match = call.search(inspect.getsource(module))
        if match:
            return ast.literal_eval(match[1])
    return None


def _list_classes_beside(config_class: type, start: str, base: type[_Class]) -> Iterator[type[_Class]]:
    """Yield the classes derived from ``base`` in the files of a config class's package whose names start like this."""
    for module in _import_beside(config_class, start):
        items = vars(module).values()
        own = (item for item in items if isinstance(item, type) and item.__module__ == module.__name__)
        yield from (item for item in own if issubclass(item, base))


def _import_beside(config_class: type, start: str) -> Iterator[ModuleType]:
    package = config_class.__module__.rpartition(".")[0]
    for entry in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name.rpartition(".")[2].startswith(start):
            yield import_module(entry.name)


def build_part(config: "PreTrainedConfig", change: Change) -> nn.Module | None:
    """Build the most complete module of a config, from the config that ``change`` makes of it."""
    changed: PreTrainedConfig = change(config)
    own = [model_class(changed) for model_class in list_own_classes(type(config))]
    inner = {type(module) for model in own for module in model.modules() if module is not model}
    outer = [model for model in own if type(model) not in inner and _size(model) > 1]  # a base class has no layer
    if outer:
        largest: nn.Module = max(outer, key=_size)
        return largest
    for composite_class in list_composites(type(config)):
        override = find_override("transformers", composite_class.model_type)
        keys = [key for key, part in composite_class.sub_configs.items() if part is type(config)]
        composite = change(composite_class(**{**copy.deepcopy(override.config), **dict.fromkeys(keys, config)}))
        model_class = override.find_class() or find_task_class(composite_class)
        if model_class is not None:
            return cut_out(model_class, composite, keys)
    return None


def cut_out(model_class: Any, composite: Any, keys: list[str]) -> nn.Module | None:
    """Build a model, and return its largest module that is built by the configurations under ``keys``.

    The module receives the configuration as an attribute, as a model class would keep it, so that it can be identified.
    """
    parts = [getattr(composite, key) for key in keys]
    with _watching(parts) as readers:
        model = model_class(composite)
    own = type(composite)
    below: list[nn.Module] = [
        m for m in model.modules() if m in readers and type(getattr(m, "config", None)) is not own
    ]
    part = max(below, key=_size, default=None)
    if part is not None and not hasattr(part, "config"):
        part.config = parts[0]
    return part


@contextmanager
def _watching(configs: list[Any]) -> Iterator[set[nn.Module]]:
    """Collect the modules whose constructors read one of these configs inside this context."""
    readers: set[nn.Module] = set()
    own_class: Any = type(configs[0])

    def read(config: Any, name: str) -> Any:
        readers.update(list_modules_under_construction())
        return own_class.__getattribute__(config, name)

    watched = type(own_class.__name__, (own_class,), {"__getattribute__": read, "__module__": own_class.__module__})
    for config in configs:
        config.__class__ = watched
    try:
        yield readers
    finally:
        for config in configs:
            config.__class__ = own_class


def list_modules_under_construction() -> Iterator[nn.Module]:
    """Yield the modules whose constructors are running, innermost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the one way to see the caller
    while frame is not None:
        if frame.f_code.co_name == "__init__" and isinstance(module := frame.f_locals.get("self"), nn.Module):
            yield module
        frame = frame.f_back


def _size(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())
