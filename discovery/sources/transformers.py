"""transformers: the model a user would load for a model type or a config object, on meta, without weights.

Some configurations are of parts of models (a text tower, a mask decoder, a connector) that no auto mapping knows. A
part with model classes of its own is the largest of those that no other class holds. One without is cut out of the
model that holds it, as the largest module below it whose constructor reads the part's configuration: a module that
reads it is built by it.
"""

import ast
import copy
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import nn

from ...data import read_facts
from ...domain.architectures import split_make_up
from ...errors import ScanFailed, UnknownArchitecture
from .recipes import Change, Recipe, explained, find_override

if TYPE_CHECKING:
    from types import FrameType

    from transformers import PreTrainedConfig, PreTrainedModel

_Class = TypeVar("_Class")

SECTIONS = "mrope_section"
"""Numbers of a head's rotations that turn with time, height and width."""


def list_names() -> list[str]:
    """Return every model type the installed transformers knows, sorted."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return sorted(CONFIG_MAPPING_NAMES)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model type: its default config, at full depth; ``blip-2[text=t5]`` has another part.

    Where the default config does not build, or leaves a tower out, ``data/build_overrides.toml`` completes it.
    """
    from transformers import AutoConfig

    model_type, make_up = split_make_up(name)
    known = list_names()
    if model_type not in known:
        raise UnknownArchitecture(model_type, known, "List what is known with: loradar list transformers")
    override = find_override("transformers", model_type)
    override.check(f"transformers:{model_type}")
    with explained(f"transformers:{name}"):
        config = AutoConfig.for_model(model_type, **copy.deepcopy(override.config))
        others: dict[str, dict[str, Any]] = {}
        for part, kind in make_up.items():
            field = _find_field(config, part)
            before = getattr(config, field)  # the other model decodes, if this one does
            decodes = {flag: True for flag in ("is_decoder", "add_cross_attention") if getattr(before, flag, False)}
            others[field] = {"model_type": kind, **decodes}
        if others:
            config = AutoConfig.for_model(model_type, **copy.deepcopy(override.config) | others)
        _add_sections(config)
    return _recipe(config, name, override.find_class())


def _find_field(config: Any, part: str) -> str:
    """Return the field of a config that describes a part.

    Raises:
        ScanFailed: If there is none of that name that takes any type.
    """
    declared = type(config).sub_configs
    inside = (field for field, value in vars(config).items() if hasattr(value, "model_type"))
    fields = [field for field in inside if field not in declared or takes_any_type(declared[field])]
    found = next((field for field in (part, f"{part}_config") if field in fields), None)
    if found is None:
        free = ", ".join(field.removesuffix("_config") for field in fields) or "none"
        message = f"{config.model_type} has no part {part!r} of a free type. Those that it has: {free}."
        raise ScanFailed(message, reference=f"transformers:{config.model_type}", part=part)
    return found


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


# --- classes and their source -----------------------------------------------------------------------------------------


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
        items = [*vars(module).values()]  # a model that is built in between may add a global: __warningregistry__
        own = (item for item in items if isinstance(item, type) and item.__module__ == module.__name__)
        yield from (item for item in own if issubclass(item, base))


def _import_beside(config_class: type, start: str) -> Iterator[ModuleType]:
    package = config_class.__module__.rpartition(".")[0]
    for entry in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name.rpartition(".")[2].startswith(start):
            yield import_module(entry.name)


# --- parts of models --------------------------------------------------------------------------------------------------


def build_part(config: "PreTrainedConfig", change: Change) -> nn.Module | None:
    """Build the most complete module of a config, from the config that ``change`` makes of it."""
    from transformers import PreTrainedModel

    changed: PreTrainedConfig = change(config)
    classes = _list_classes_beside(type(config), "modeling_", PreTrainedModel)
    own = [model_class(changed) for model_class in classes if model_class.config_class is type(config)]
    inner = {type(module) for model in own for module in model.modules() if module is not model}
    outer = [model for model in own if type(model) not in inner and _size(model) > 1]  # a base class has no layer
    if outer:
        largest: nn.Module = max(outer, key=_size)
        return largest
    for composite_class, keys in list_composites(type(config)):
        override = find_override("transformers", composite_class.model_type)
        composite = change(composite_class(**{**copy.deepcopy(override.config), **dict.fromkeys(keys, config)}))
        model_class = override.find_class() or find_task_class(composite_class)
        if model_class is not None:
            return cut_out(model_class, composite, keys)
    return None


def list_composites(config_class: "type[PreTrainedConfig]") -> "Iterator[tuple[type[PreTrainedConfig], list[str]]]":
    """Yield the config classes of the same package that hold this one as a sub-configuration, with its names there."""
    from transformers import PretrainedConfig  # the name that transformers 4 and 5 both have

    for config in _list_classes_beside(config_class, "configuration_", PretrainedConfig):
        keys = [key for key, part in (config.sub_configs or {}).items() if part is config_class]
        if keys:
            yield config, keys


def cut_out(model_class: Any, composite: Any, keys: list[str]) -> nn.Module | None:
    """Build a model, and return its largest module that is built by the configurations under ``keys``.

    The module receives the configuration as an attribute, as a model class would keep it, so that it can be identified.
    """
    parts = [getattr(composite, key) for key in keys]
    part_class: Any = type(parts[0])
    readers: set[nn.Module] = set()

    def read(config: Any, name: str) -> Any:
        readers.update(list_modules_under_construction())
        return part_class.__getattribute__(config, name)

    names = {"__getattribute__": read, "__module__": part_class.__module__}
    watched = type(part_class.__name__, (part_class,), names)
    for config in parts:
        config.__class__ = watched
    try:
        model = model_class(composite)
    finally:
        for config in parts:
            config.__class__ = part_class
    own = type(composite)
    below: list[nn.Module] = [
        m for m in model.modules() if m in readers and type(getattr(m, "config", None)) is not own
    ]
    part = max(below, key=_size, default=None)
    if part is not None and not hasattr(part, "config"):
        part.config = parts[0]
    return part


def list_modules_under_construction() -> Iterator[nn.Module]:
    """Yield the modules whose constructors are running, innermost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the one way to see the caller
    while frame is not None:
        if frame.f_code.co_name == "__init__" and isinstance(module := frame.f_locals.get("self"), nn.Module):
            yield module
        frame = frame.f_back


def _size(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())


# --- auto classes ----------------------------------------------------------------------------------------------------


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
