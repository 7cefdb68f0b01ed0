"""diffusers: a model class -> its model from the default configuration, on meta, without weights."""

from functools import cache
from typing import Any

from torch import nn

from ...errors import UnknownArchitecture
from . import explained
from .overrides import find_override, refuse_unbuilt
from .unfilled import move_to_meta, unfilled


def list_names() -> list[str]:
    """Return every public model class of the installed diffusers, sorted."""
    return sorted(_model_classes())


def build(name: str) -> nn.Module:
    """Build a diffusers model class from its default configuration on the meta device, at full depth.

    Raises:
        UnknownArchitecture: If diffusers has no such model class.
        ScanFailed: If it does not build.
    """
    known = _model_classes()
    if name not in known:
        raise UnknownArchitecture(name, sorted(known), "List what is known with: loradar list diffusers")
    refuse_unbuilt(find_override("diffusers", name), f"diffusers:{name}")
    with explained(f"diffusers:{name}"), unfilled():
        model = _construct(name)
        move_to_meta(model)
    return model


def _construct(name: str) -> nn.Module:
    """Call a class with its override; models it is made of are made the same way."""
    override = find_override("diffusers", name)
    parts = {argument: [_construct(part) for part in names] for argument, names in override.models.items()}
    model: nn.Module = _model_classes()[name](**override.config, **parts)
    return model


@cache
def _model_classes() -> dict[str, Any]:
    """Return diffusers' public model classes by name; what needs a package that is missing is a placeholder there."""
    import diffusers

    public = {name: getattr(diffusers, name) for name in dir(diffusers) if not name.startswith("_")}
    base = diffusers.ModelMixin
    return {n: c for n, c in public.items() if isinstance(c, type) and issubclass(c, base) and c is not base}
