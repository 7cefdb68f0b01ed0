"""timm: the model of an architecture name on meta, without weights, and the arguments of its class."""

import inspect
import sys
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...errors import ScanFailed, UnknownArchitecture
from .recipes import Change, Recipe, explained
from .weights import OnMeta, move_to_meta, unfilled


def list_names() -> list[str]:
    """Return every architecture name of the installed timm, in its natural order."""
    import timm

    return [*timm.list_models()]


def build(name: str) -> nn.Module:
    """Build an architecture on the meta device as timm does, for which no recipe is needed; tags change no layers."""
    import timm

    _check_known(name)
    with explained(f"timm:{name}"), unfilled():
        model: nn.Module = timm.create_model(name, pretrained=False)
        move_to_meta(model)
    return model


def find_recipe(name: str) -> Recipe:
    """Return the recipe of an architecture: the arguments its entry in timm's registry calls its class with."""
    import timm

    _check_known(name)
    with explained(f"timm:{name}"):
        try:
            with _WatchingCalls():
                timm.create_model(name, pretrained=False)
        except _Call as call:
            if call.variant == name and not call.has_model:
                return Recipe(f"timm:{name}", call.settings, call.construct)
            # The entry makes a second model first, its backbone: only the size of the image can be changed.
            size = {key: value for key, value in call.settings.items() if key == "img_size" and value}

            def create(settings: dict[str, Any], change: Change) -> nn.Module:
                model: nn.Module = timm.create_model(name, pretrained=False, **_add_image_size(change(settings)))
                return model

            return Recipe(f"timm:{name}", size, create)
    message = f"timm:{name} makes no tensor when it is built, so its arguments cannot be told."
    raise ScanFailed(message, reference=f"timm:{name}")


def _add_image_size(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with a data config for the size of their image."""
    size = arguments.get("img_size")
    if not size:
        return arguments
    sides = (size, size) if isinstance(size, int) else (size[0], size[1])
    return {"pretrained_cfg_overlay": {"input_size": (arguments.get("in_chans", 3), *sides)}, **arguments}


def _check_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise UnknownArchitecture(name, list_names(), "List what is known with: loradar list timm")


@dataclass(eq=False)
class _Call(BaseException):
    """The call of a model's class; raised to end the build, past any ``except Exception``."""

    model_class: Any
    variant: str
    settings: dict[str, Any]
    kwargs_filter: Any

    @property
    def has_model(self) -> bool:
        """Whether one of the arguments is a model that is built already, or makes something of one."""
        values = [*self.settings.values()]
        values += [inner for value in values for inner in getattr(value, "keywords", {}).values()]  # of a partial
        return any(isinstance(value, nn.Module) for value in values)

    def construct(self, settings: dict[str, Any], change: Change) -> nn.Module:
        """Build the class as timm does: with a data config, which has the size of its input."""
        from timm.models import build_model_with_cfg

        named = {"kwargs_filter": self.kwargs_filter, **_add_image_size(change(settings))}
        model: nn.Module = build_model_with_cfg(self.model_class, self.variant, pretrained=False, **named)
        return model


class _WatchingCalls(OnMeta):
    """Raise :class:`_Call` when a model's constructor makes its first tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look up the call that builds the model, whose frame holds its class and arguments."""
        from timm.models import build_model_with_cfg

        frame = sys._getframe(1)  # noqa: SLF001  # the one way to see the caller
        while frame.f_back is not None and frame.f_code is not build_model_with_cfg.__code__:
            frame = frame.f_back
        if frame.f_code is not build_model_with_cfg.__code__:
            return super().__torch_function__(func, types, args, kwargs)
        local = frame.f_locals
        parameters = inspect.signature(local["model_cls"]).parameters.items()
        defaults = {name: each.default for name, each in parameters if isinstance(each.default, int | tuple)}
        chosen = {} if local["model_cfg"] is None else {"model_cfg": local["model_cfg"]}
        raise _Call(
            local["model_cls"], local["variant"], {**defaults, **local["kwargs"], **chosen}, local["kwargs_filter"]
        )
