"""diffusers: a model class -> its model from the default configuration, on meta, without weights."""

import inspect
from functools import cache, partial
from typing import Any

from torch import nn

from ...errors import UnknownArchitecture
from .overrides import find_override, refuse_unbuilt
from .recipes import Change, Recipe


def list_names() -> list[str]:
    """Return every public model class of the installed diffusers, sorted."""
    return sorted(_model_classes())


def build(name: str) -> nn.Module:
    """Build a diffusers model class from its default configuration on the meta device, at full depth.

    Raises:
        UnknownArchitecture: If diffusers has no such model class.
        ScanFailed: If it does not build.
    """
    return find_recipe(name).build_on_meta()


def find_recipe(name: str) -> Recipe:
    """Return what a model class is built from: every argument it has a default or an override for.

    Raises:
        UnknownArchitecture: If diffusers has no such model class.
        ScanFailed: If it is known not to build.
    """
    known = _model_classes()
    if name not in known:
        raise UnknownArchitecture(name, sorted(known), "List what is known with: loradar list diffusers")
    refuse_unbuilt(find_override("diffusers", name), f"diffusers:{name}")
    return Recipe(f"diffusers:{name}", _settings(name), partial(_construct, name))


def _settings(name: str) -> dict[str, Any]:
    """Return the arguments of a class, as its override has them or by default."""
    parameters = inspect.signature(_model_classes()[name].__init__).parameters
    defaults = {key: held.default for key, held in parameters.items() if held.default is not held.empty}
    return {**defaults, **find_override("diffusers", name).config}


def _construct(name: str, settings: dict[str, Any], change: Change) -> nn.Module:
    """Call a class with its arguments; models it is made of are made the same way."""
    models = find_override("diffusers", name).models
    parts = {key: [_construct(part, _settings(part), change) for part in names] for key, names in models.items()}
    model: nn.Module = _model_classes()[name](**change(settings), **parts)
    return model


@cache
def _model_classes() -> dict[str, Any]:
    """Return diffusers' public model classes by name; what needs a package that is missing is a placeholder there."""
    import diffusers

    public = {name: getattr(diffusers, name) for name in dir(diffusers) if not name.startswith("_")}
    base = diffusers.ModelMixin
    return {n: c for n, c in public.items() if isinstance(c, type) and issubclass(c, base) and c is not base}
