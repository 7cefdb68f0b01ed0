"""timm: an architecture name -> its model on meta, without weights; and what its class is called with."""

import inspect
import sys
from functools import partial
from typing import Any

from torch import nn

from ...errors import ScanFailed, UnknownArchitecture
from . import explained
from .recipes import Change, Recipe
from .unfilled import OnMeta, move_to_meta, unfilled


def list_names() -> list[str]:
    """Return every architecture name of the installed timm, in its natural order."""
    import timm

    names: list[str] = timm.list_models()
    return names


def build(name: str) -> nn.Module:
    """Build a timm architecture on the meta device; a pretrained tag does not change the layers.

    Raises:
        UnknownArchitecture: If timm has no such model.
        ScanFailed: If it does not build.
    """
    import timm

    _check_known(name)
    with explained(f"timm:{name}"), unfilled():
        model: nn.Module = timm.create_model(name, pretrained=False)
        move_to_meta(model)
    return model


def find_recipe(name: str) -> Recipe:
    """Return what an architecture's class is called with, its entry in timm's registry having chosen everything.

    Raises:
        UnknownArchitecture: If timm has no such model.
        ScanFailed: If it does not build.
    """
    import timm

    _check_known(name)
    with explained(f"timm:{name}"):
        try:
            with _Listening():
                timm.create_model(name, pretrained=False)
        except _Heard as heard:
            if heard.variant != name or heard.holds_a_model:
                size = {key: value for key, value in heard.settings.items() if key == "img_size" and value}
                return Recipe(f"timm:{name}", size, partial(_create, name))
            return Recipe(f"timm:{name}", heard.settings, partial(_construct, heard))
    message = f"timm:{name} makes no tensor when it is built, so its arguments cannot be told."
    raise ScanFailed(message, reference=f"timm:{name}")


def _create(name: str, settings: dict[str, Any], change: Change) -> nn.Module:
    """Build an architecture whose entry makes a second model first, its backbone: only its image can be changed."""
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, **_sized(change(settings)))
    return model


def _sized(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with a data config that says what image they ask for."""
    size = given.get("img_size")
    sizes = {"pretrained_cfg_overlay": {"input_size": (given.get("in_chans", 3), *_pair(size))}} if size else {}
    return {**sizes, **given}


def _check_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise UnknownArchitecture(name, list_names(), "List what is known with: loradar list timm")


def _construct(heard: "_Heard", settings: dict[str, Any], change: Change) -> nn.Module:
    """Build a class as timm does: with a data config, which says what input it takes."""
    from timm.models import build_model_with_cfg

    named = {"kwargs_filter": heard.refused, **_sized(change(settings))}
    model: nn.Module = build_model_with_cfg(heard.model_class, heard.variant, pretrained=False, **named)
    return model


def _defaults(model_class: Any) -> dict[str, Any]:
    """Return the numbers a class has by default."""
    parameters = inspect.signature(model_class).parameters.items()
    return {name: held.default for name, held in parameters if isinstance(held.default, int | tuple)}


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class _Heard(BaseException):
    """Ends a build as soon as it is known what the class is called with; no ``except Exception`` swallows it."""

    def __init__(self, model_class: Any, variant: str, settings: dict[str, Any], refused: Any) -> None:
        super().__init__()
        self.refused = refused
        self.model_class = model_class
        self.variant = variant
        self.settings = settings

    @property
    def holds_a_model(self) -> bool:
        """Whether one of the arguments is a model that is built already, or makes something of one."""
        given = [*self.settings.values()]
        given += [held for value in given for held in getattr(value, "keywords", {}).values()]  # of a partial
        return any(isinstance(held, nn.Module) for held in given)


class _Listening(OnMeta):
    """Raises :class:`_Heard` when a model's constructor makes its first tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look up the call that builds the model, in whose frame its class and arguments stand."""
        from timm.models import build_model_with_cfg

        frame = sys._getframe(1)  # noqa: SLF001  # the one way to see who asks
        while frame.f_back is not None and frame.f_code is not build_model_with_cfg.__code__:
            frame = frame.f_back
        if frame.f_code is build_model_with_cfg.__code__:
            held = frame.f_locals
            chosen = {} if held["model_cfg"] is None else {"model_cfg": held["model_cfg"]}
            told = {**_defaults(held["model_cls"]), **held["kwargs"], **chosen}
            raise _Heard(held["model_cls"], held["variant"], told, held["kwargs_filter"])
        return super().__torch_function__(func, types, args, kwargs)
