"""The user's model around the adapters: one walk over its modules, and its own switches and gradient flags."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ...discovery import find_inner, is_compiled, open_wrappers, read_attribute
from ...errors import InvalidConfig
from ...warn import warn
from ..layers.wrappers import Wrapper
from .checkpointing import Checkpointing


class Site(NamedTuple):
    """A module and its position in its parent, so that it can be replaced without looking its path up again.

    Attributes:
        module: The user's module.
        parent: The user's module that contains it.
        name: Its name there.
        wrappers: The wrappers around it, the outermost first.
    """

    module: nn.Module
    parent: nn.Module
    name: str
    wrappers: tuple[Wrapper, ...] = ()

    def current(self) -> nn.Module:
        """Return the child at this site now, inside of wrappers of others: the module or its outermost wrapper."""
        child: Any = self.parent._modules[self.name]  # noqa: SLF001
        while inner := find_inner(child):
            child = child._modules[inner]  # noqa: SLF001
        return child  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Survey:
    """A model and all its modules but the root, by path, each module once, in the order of ``named_modules``.

    The walk sees through our own adapters and through wrappers that run a module as it is, compiled or data-parallel:
    paths and modules are those of the model without them.

    Attributes:
        model: The model, inside of all wrappers.
        sites: The modules in it.
        repeats: The further positions of modules that have several, each as a parent and the name there.
        wrapped: The wrappers of others inside of the model, each with its parent and its name there.
        around: The wrappers of others around the model, the outermost first.
    """

    model: nn.Module
    sites: dict[str, Site]
    repeats: list[tuple[nn.Module, str]]
    wrapped: list[tuple[nn.Module, str, nn.Module]] = field(default_factory=list)
    around: tuple[nn.Module, ...] = ()

    def walk(self) -> None:
        """List the modules again, after blocks of the model were exchanged."""
        self.sites.clear()
        self.repeats.clear()
        self.wrapped.clear()
        _descend(self.model, "", self, {id(self.model)})

    def replace(self, site: Site, module: nn.Module) -> None:
        """Put ``module`` in the place of the current child at a site, in every position of that child."""
        before = site.parent._modules[site.name]  # noqa: SLF001
        site.parent._modules[site.name] = module  # noqa: SLF001 - nn.Module's assignment costs as much as the rest
        for parent, name in self.repeats:
            if parent._modules[name] is before:  # noqa: SLF001
                parent._modules[name] = module  # noqa: SLF001

    def wrap(self, site: Site, wrappers: Sequence[Wrapper]) -> None:
        """Put these wrappers, the outermost first, around the module of a site, and no other."""
        inside = site.module
        for wrapper in reversed(wrappers):
            wrapper.put(inside)
            inside = wrapper
        self.replace(site, inside)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all modules, which targets are matched against."""
        return tuple(self.sites)

    def modules(self) -> Iterator[nn.Module]:
        """Yield every module, the root first."""
        yield self.model
        for site in self.sites.values():
            yield site.module

    def parameter_paths(self) -> tuple[str, ...]:
        """Return the path of every parameter of every module but the root, for ``target_parameters``."""
        return tuple(
            f"{path}.{name}"
            for path, site in self.sites.items()
            for name, parameter in site.module._parameters.items()  # noqa: SLF001
            if parameter is not None
        )

    def shared_parameters(self) -> set[int]:
        """Return the ids of the parameters that more than one module holds."""
        counts = Counter(
            id(parameter)
            for module in self.modules()
            for parameter in module._parameters.values()  # noqa: SLF001 - a generator per module costs more than the walk
            if parameter is not None
        )
        return {key for key, count in counts.items() if count > 1}

    def sharing(self, path: str) -> list[str]:
        """Return the paths of the modules outside of ``path`` that hold one of its parameters too."""
        inside = {id(parameter) for parameter in self.sites[path].module.parameters()}
        return [
            other
            for other, site in self.sites.items()
            if not f"{other}.".startswith(f"{path}.")
            and not inside.isdisjoint(map(id, site.module._parameters.values()))  # noqa: SLF001
        ]


def survey_model(model: nn.Module) -> Survey:
    """Walk ``model`` once; a module in two positions is listed under its first path, as in PEFT."""
    *around, model = open_wrappers(model)
    survey = Survey(model, {}, [], around=tuple(around))
    survey.walk()
    return survey


def _descend(parent: nn.Module, prefix: str, survey: Survey, seen: set[int]) -> None:
    for name, child in parent._modules.items():  # noqa: SLF001 - named_modules() does not give the parent
        if child is None:
            continue
        if id(child) in seen:
            survey.repeats.append((parent, name))
            continue
        module, wrappers = _open(child, (parent, name), survey, seen)
        path = prefix + name
        survey.sites[path] = Site(module, parent, name, wrappers)
        if module._modules and not is_compiled(module):  # noqa: SLF001
            _descend(module, path + ".", survey, seen)


def _open(
    child: nn.Module, place: tuple[nn.Module, str], survey: Survey, seen: set[int]
) -> tuple[nn.Module, tuple[Wrapper, ...]]:
    """Return the module at a place, inside of all wrappers, and our wrappers around it, the outermost first."""
    wrappers: tuple[Wrapper, ...] = ()
    seen.add(id(child))
    while True:
        if isinstance(child, Wrapper):
            wrappers += (child,)
            child = child.wrapped()
        elif inner := find_inner(child):
            survey.wrapped.append((*place, child))
            child = child._modules[inner]  # type: ignore[assignment]  # noqa: SLF001
        else:
            return child, wrappers
        seen.add(id(child))


@contextmanager
def unwrapped(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the model inside of all wrappers, with those inside of it, ours too, taken off for a ``with`` block."""
    survey = survey_model(model)
    adapted = [(site, site.current()) for site in survey.sites.values() if site.wrappers]
    for parent, name, wrapper in survey.wrapped:
        parent._modules[name] = wrapper._modules[find_inner(wrapper)]  # noqa: SLF001
    for site, _ in adapted:
        survey.replace(site, site.module)
    try:
        yield survey.model
    finally:
        for site, wrapper in adapted:
            survey.replace(site, wrapper)
        for parent, name, wrapper in reversed(survey.wrapped):
            parent._modules[name] = wrapper  # noqa: SLF001


class HostState:
    """The gradient flags, hooks and switches of a model that its adapters change: changed here, restored at the end."""

    def __init__(self, survey: Survey) -> None:
        """Freeze the whole model, and keep PyTorch's encoders off the fast path that calls no layer.

        They pack padded batches for it; a hook keeps the layers inside of them off it (``apply.attach``).
        """
        # Not the parameters themselves: moving a model off the meta device replaces them.
        self.trainable = [
            (module, name)
            for module in survey.modules()
            for name, parameter in module._parameters.items()  # noqa: SLF001 - a generator per module costs more than the walk
            if parameter is not None and parameter.requires_grad
        ]
        for module, name in self.trainable:
            module._parameters[name].requires_grad = False  # type: ignore[union-attr]  # noqa: SLF001
        encoders = (module for module in survey.modules() if isinstance(module, nn.TransformerEncoder))
        self.encoders: list[Any] = [encoder for encoder in encoders if encoder.use_nested_tensor]
        for encoder in self.encoders:
            encoder.use_nested_tensor = False
        is_enabled = any(module.__dict__.get("gradient_checkpointing", False) for module in survey.modules())
        self.checkpointing = Checkpointing(survey.model, is_enabled=is_enabled)
        self.wrapped = survey.wrapped
        self.outdated = [_reject_forwards(wrapper) for wrapper in survey.around if not find_inner(wrapper)]

    def restore(self, model: Any) -> None:
        """Restore the model, from which the adapters are removed."""
        for parameter in model.parameters():
            parameter.requires_grad = False
        for module, name in self.trainable:
            parameter = getattr(module, name)
            # One made under inference_mode cannot train, and torch rejects the flag outside of that.
            parameter.requires_grad = torch.is_inference_mode_enabled() or not parameter.is_inference()
        for encoder in self.encoders:
            encoder.use_nested_tensor = True
        self.checkpointing.remove(model)
        for parent, name, wrapper in reversed(self.wrapped):
            if parent._modules.get(name) is wrapper._modules[find_inner(wrapper)]:  # noqa: SLF001
                parent._modules[name] = wrapper  # noqa: SLF001
        for handle in self.outdated:
            handle.remove()


def _reject_forwards(wrapper: nn.Module) -> Any:
    """Let a wrapper reject forwards, and warn: it knows the parameters that it was made with alone."""
    name = type(wrapper).__name__
    way_out = f"Wrap the model with adapters: {name}(peft_model)"
    warn(f"The {name} around the model averages no gradients of adapters, and is taken off. {way_out}.")

    def reject(*_: Any) -> None:
        message = f"This {name} was made before the adapters and averages none of their gradients. {way_out}."
        raise InvalidConfig(message, class_name=name)

    return wrapper.register_forward_pre_hook(reject)


def note_untied(model: Any) -> bool:
    """Clear ``tie_word_embeddings`` of a transformers model whose embeddings became untied; return whether they did.

    Otherwise saving and reloading would tie them again and drop the trained head.
    """
    config = read_attribute(model, "config")
    if config is None or not read_attribute(config, "tie_word_embeddings"):
        return False
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is None or written is None or read.weight is written.weight:
        return False
    config.tie_word_embeddings = False
    return True


def set_trainable(tensors: Iterable[torch.Tensor], *, trainable: bool) -> None:
    """Set the gradient flag of the parameters among ``tensors`` whose dtype allows one."""
    for tensor in tensors:
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and not tensor.is_inference():
            tensor.requires_grad = trainable
