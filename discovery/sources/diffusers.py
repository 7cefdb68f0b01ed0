"""diffusers: the model of a model class from its default configuration, on meta, without weights."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from torch import nn

from ...errors import UnknownArchitecture
from .recipes import Change, Recipe, find_override


def list_names() -> list[str]:
    """Return every public model class of the installed diffusers, sorted."""
    return sorted(list_classes())


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model class: every argument that has a default or an override.

    Arguments that are models stand there with their own arguments, so that a change reaches these as well.
    """
    known = list_classes()
    if name not in known:
        raise UnknownArchitecture(name, sorted(known), "List what is known with: loradar list diffusers")
    override = find_override("diffusers", name)
    override.check(f"diffusers:{name}")
    parts = {key: [_list_arguments(part) for part in names] for key, names in override.models.items()}
    return Recipe(f"diffusers:{name}", {**_list_arguments(name), **parts}, partial(_construct, name))


def build_configured(name: str, config: Mapping[str, Any]) -> nn.Module:
    """Build a model class on meta with the arguments that a ``config.json`` of it states.

    Raises:
        UnknownArchitecture: If diffusers has no such class.
        ScanFailed: If it does not build with them.
    """
    recipe = find_recipe(name)
    arguments = inspect.signature(list_classes()[name].__init__).parameters
    stated = {key: value for key, value in config.items() if key in arguments}
    return replace(recipe, settings={**recipe.settings, **stated}).build_on_meta()


def _list_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of a class, from its override or by default."""
    parameters = inspect.signature(list_classes()[name].__init__).parameters
    defaults = {key: each.default for key, each in parameters.items() if each.default is not each.empty}
    return {**defaults, **find_override("diffusers", name).config}


def _construct(name: str, settings: dict[str, Any], change: Change) -> nn.Module:
    """Call a class with its changed arguments, after the classes of those that are models."""
    changed = change(settings)
    for key, names in find_override("diffusers", name).models.items():
        pairs = zip(names, changed[key], strict=True)
        changed[key] = [list_classes()[part](**arguments) for part, arguments in pairs]
    model: nn.Module = list_classes()[name](**changed)
    return model


@cache
def list_classes() -> dict[str, Any]:
    """Return diffusers' public model classes by name, without the placeholders for missing packages."""
    import diffusers

    public = {name: getattr(diffusers, name) for name in dir(diffusers) if not name.startswith("_")}
    base = diffusers.ModelMixin
    return {n: c for n, c in public.items() if isinstance(c, type) and issubclass(c, base) and c is not base}
