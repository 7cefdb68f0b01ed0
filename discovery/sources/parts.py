"""Parts of transformers models that no auto mapping knows: text towers, mask decoders, connectors."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from ..words import read_facts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def find_part_class(config_class: "type[PreTrainedConfig]") -> "type[PreTrainedModel] | None":
    """Return the model class that names this config class as its own, anywhere in that model's package.

    Of several the most whole one stands for the part, by ``data/transformers.toml``.
    """
    from transformers import PreTrainedModel

    models: list[type[PreTrainedModel]] = [m for m in _modules_beside(config_class) if issubclass(m, PreTrainedModel)]
    own = [m for m in models if m.config_class is config_class and not m.__name__.endswith("PreTrainedModel")]
    return min(own, key=_wholeness, default=None)


def build_part(config: "PreTrainedConfig") -> nn.Module | None:
    """Build the largest plain module whose constructor asks for just this config; to be called on meta.

    It is given the config as an attribute, as a model class would keep it, so that it can say what it is.
    """
    takers = [module for module in _modules_beside(type(config)) if _asks_for(module, type(config))]
    parts = [taker(config) for taker in takers]
    part = max(parts, key=_size, default=None)
    if part is not None and not hasattr(part, "config"):
        part.config = config
    return part


def _modules_beside(config_class: type) -> Iterator[type[nn.Module]]:
    """Yield the module classes defined in the modeling files of a config class's package."""
    package = config_class.__module__.rpartition(".")[0]
    for entry in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if entry.name.rpartition(".")[2].startswith("modeling_"):
            modeling = import_module(entry.name)
            own = (item for item in vars(modeling).values() if getattr(item, "__module__", None) == entry.name)
            yield from (item for item in own if isinstance(item, type) and issubclass(item, nn.Module))


def _asks_for(module_class: type[nn.Module], config_class: type) -> bool:
    """Tell whether a constructor needs one argument only, annotated with this config class."""
    parameters = list(inspect.signature(module_class.__init__).parameters.values())[1:]
    required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return len(required) == 1 and _annotation(required[0]) == config_class.__name__


def _annotation(parameter: inspect.Parameter) -> str:
    annotation: Any = parameter.annotation
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")


def _size(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())


def _wholeness(model_class: type) -> int:
    marks: list[str] = read_facts("transformers.toml")["part_classes"]
    return next((rank for rank, mark in enumerate(marks) if mark in model_class.__name__), len(marks))
