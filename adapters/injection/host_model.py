"""The user's model around the adapters: one walk over its modules, and its own switches and gradient flags."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ...discovery import is_compiled, read_attribute
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
        """Return the child of the parent at this site now: the module or its outermost wrapper."""
        return self.parent._modules[self.name]  # type: ignore[return-value]  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Survey:
    """A model and all its modules but the root, by path, each module once, in the order of ``named_modules``.

    The walk sees through our own adapters: paths and modules are those of the model without them.
    """

    model: nn.Module
    sites: dict[str, Site]
    repeats: list[tuple[nn.Module, str]]
    """The further positions of modules that have several, each as a parent and the name there."""

    def walk(self) -> None:
        """List the modules again, after blocks of the model were exchanged."""
        self.sites.clear()
        self.repeats.clear()
        _descend(self.model, "", self, {id(self.model)})

    def replace(self, site: Site, module: nn.Module) -> None:
        """Put ``module`` in the place of the current child at a site, in every position of that child."""
        before = site.current()
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
    survey = Survey(model, {}, [])
    survey.walk()
    return survey


def _descend(parent: nn.Module, prefix: str, survey: Survey, seen: set[int]) -> None:
    for name, child in parent._modules.items():  # noqa: SLF001 - named_modules() does not give the parent
        if child is None:
            continue
        if id(child) in seen:
            survey.repeats.append((parent, name))
            continue
        seen.add(id(child))
        wrappers: tuple[Wrapper, ...] = ()
        module = child
        while isinstance(module, Wrapper):
            wrappers += (module,)
            module = module.wrapped()
            seen.add(id(module))
        path = prefix + name
        survey.sites[path] = Site(module, parent, name, wrappers)
        if module._modules and not is_compiled(module):  # noqa: SLF001
            _descend(module, path + ".", survey, seen)


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

    def restore(self, model: Any) -> None:
        """Restore the model, from which the adapters are removed."""
        for parameter in model.parameters():
            parameter.requires_grad = False
        for module, name in self.trainable:
            getattr(module, name).requires_grad = True
        for encoder in self.encoders:
            encoder.use_nested_tensor = True
        self.checkpointing.remove(model)


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
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            tensor.requires_grad = trainable
