"""diffusers: the model of a model class from its default configuration, on meta, without weights."""

import inspect
from functools import cache, partial
from typing import Any

from torch import nn

from ...errors import UnknownArchitecture
from .recipes import Change, Recipe, find_override


def list_names() -> list[str]:
    """Return every public model class of the installed diffusers, sorted."""
    return sorted(list_classes())


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model class: every argument that has a default or an override."""
    known = list_classes()
    if name not in known:
        raise UnknownArchitecture(name, sorted(known), "List what is known with: loradar list diffusers")
    find_override("diffusers", name).check(f"diffusers:{name}")
    return Recipe(f"diffusers:{name}", _list_arguments(name), partial(_construct, name))


def _list_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of a class, from its override or by default."""
    parameters = inspect.signature(list_classes()[name].__init__).parameters
    defaults = {key: each.default for key, each in parameters.items() if each.default is not each.empty}
    return {**defaults, **find_override("diffusers", name).config}


def _construct(name: str, settings: dict[str, Any], change: Change) -> nn.Module:
    """Call a class with its arguments; arguments that are models are constructed in the same way."""
    models = find_override("diffusers", name).models
    parts = {key: [_construct(part, _list_arguments(part), change) for part in names] for key, names in models.items()}
    model: nn.Module = list_classes()[name](**change(settings), **parts)
    return model


@cache
def list_classes() -> dict[str, Any]:
    """Return diffusers' public model classes by name, without the placeholders for missing packages."""
    import diffusers

    public = {name: getattr(diffusers, name) for name in dir(diffusers) if not name.startswith("_")}
    base = diffusers.ModelMixin
    return {n: c for n, c in public.items() if isinstance(c, type) and issubclass(c, base) and c is not base}
