"""One walk over a model: every module, its path and where it hangs. Nothing else in this folder walks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from ..layers.wrapper import Wrapper


class Site(NamedTuple):
    """A module and the place it hangs in, so that it can be replaced without looking its path up again.

    Attributes:
        module: The user's module.
        parent: The user's module it belongs to.
        name: Its name there.
        location: Its path as it is now, adapters included: inside of one it goes on in ``base_layer``.
        wrappers: What stands in for it now, the outermost first.
    """

    module: nn.Module
    parent: nn.Module
    name: str
    location: str
    wrappers: tuple[Wrapper, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """A model and all its modules but the root, by path, each module once, in the order of ``named_modules``.

    The walk sees through our own adapters: paths and modules are those of the model without them.
    """

    model: nn.Module
    sites: dict[str, Site]
    again: list[tuple[nn.Module, str]]
    """The further places of modules that hang in several, each as its parent and its name there."""

    def hang(self, site: Site, module: nn.Module) -> None:
        """Put ``module`` in the place of what hangs at a site, in every place where that hangs."""
        before = site.parent._modules[site.name]  # noqa: SLF001 - nn.Module's assignment costs as much as the rest
        site.parent._modules[site.name] = module  # noqa: SLF001
        for parent, name in self.again:
            if parent._modules[name] is before:  # noqa: SLF001
                parent._modules[name] = module  # noqa: SLF001

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path a target can match."""
        return tuple(self.sites)

    def modules(self) -> Iterator[nn.Module]:
        """Yield every module, the root first."""
        yield self.model
        for site in self.sites.values():
            yield site.module

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of every module; a tied one comes once per module that holds it."""
        for module in self.modules():
            for parameter in module._parameters.values():  # noqa: SLF001 - a generator per module costs more than the walk
                if parameter is not None:
                    yield parameter

    def parameter_paths(self) -> tuple[str, ...]:
        """Return the path of every parameter of every module but the root, for ``target_parameters``."""
        return tuple(
            f"{path}.{name}"
            for path, site in self.sites.items()
            for name, parameter in site.module._parameters.items()  # noqa: SLF001
            if parameter is not None
        )


def survey_model(model: nn.Module) -> Survey:
    """Walk ``model`` once. A module that hangs in two places is listed under its first path, as PEFT does."""
    survey = Survey(model, {}, [])
    _descend(model, "", "", survey, {id(model)})
    return survey


def _descend(parent: nn.Module, prefix: str, location: str, survey: Survey, seen: set[int]) -> None:
    for name, hanging in parent._modules.items():  # noqa: SLF001 - named_modules() does not tell the parent
        if hanging is None:
            continue
        if id(hanging) in seen:
            survey.again.append((parent, name))
            continue
        seen.add(id(hanging))
        path, where = prefix + name, location + name
        wrappers: tuple[Wrapper, ...] = ()
        module, inside = hanging, where
        while isinstance(module, Wrapper):
            wrappers += (module,)
            inside = f"{inside}.{module.inner_name}"
            module = module.wrapped()
            seen.add(id(module))
        survey.sites[path] = Site(module, parent, name, where, wrappers)
        if module._modules:  # noqa: SLF001
            _descend(module, path + ".", inside + ".", survey, seen)
