"""Parts of transformers models that no auto mapping knows: text towers, mask decoders, connectors.

A part with model classes of its own is the largest of those that no other holds. One without is cut out of the model
that holds it, as the largest module below it whose constructor reads the part's configuration: who reads it is built
by it.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from .classes import find_task_class, list_composites, list_own_classes
from .overrides import find_override
from .recipes import Change

if TYPE_CHECKING:
    from types import FrameType

    from transformers import PreTrainedConfig


def build_part(config: "PreTrainedConfig", change: Change) -> nn.Module | None:
    """Build the most whole module a config stands for, from what ``change`` makes of the config."""
    changed: PreTrainedConfig = change(config)
    own = [model_class(changed) for model_class in list_own_classes(type(config))]
    inner = {type(module) for model in own for module in model.modules() if module is not model}
    outer = [model for model in own if type(model) not in inner and _size(model) > 1]  # a base class has no layer
    return max(outer, key=_size) if outer else _cut_out(config, change)


def _cut_out(config: "PreTrainedConfig", change: Change) -> nn.Module | None:
    """Build the first composite that holds this config, and return the module built by the config.

    It is given the config as an attribute, as a model class would keep it, so that it can say what it is.
    """
    for composite_class in list_composites(type(config)):
        override = find_override("transformers", composite_class.model_type)
        keys = [key for key, held in composite_class.sub_configs.items() if held is type(config)]
        composite = change(composite_class(**{**copy.deepcopy(override.config), **dict.fromkeys(keys, config)}))
        model_class = override.find_class() or find_task_class(composite_class)
        if model_class is None:
            continue
        parts = [getattr(composite, key) for key in keys]
        with _watching(parts) as readers:
            model = model_class(composite)
        below = [m for m in model.modules() if m in readers and type(getattr(m, "config", None)) is not composite_class]
        part = max(below, key=_size, default=None)
        if part is not None and not hasattr(part, "config"):
            part.config = parts[0]
        return part
    return None


@contextmanager
def _watching(configs: list[Any]) -> Iterator[set[nn.Module]]:
    """Collect the modules whose constructors read one of these configs inside this context."""
    readers: set[nn.Module] = set()
    own_class: Any = type(configs[0])

    def read(config: Any, name: str) -> Any:
        readers.update(_modules_under_construction())
        return own_class.__getattribute__(config, name)

    watched = type(own_class.__name__, (own_class,), {"__getattribute__": read, "__module__": own_class.__module__})
    for config in configs:
        config.__class__ = watched
    try:
        yield readers
    finally:
        for config in configs:
            config.__class__ = own_class


def _modules_under_construction() -> Iterator[nn.Module]:
    """Yield the modules whose constructors are running, innermost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the one way to see who asks
    while frame is not None:
        if frame.f_code.co_name == "__init__" and isinstance(module := frame.f_locals.get("self"), nn.Module):
            yield module
        frame = frame.f_back


def _size(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())
