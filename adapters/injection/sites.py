"""One walk over a model: every module, its path, its parent and the adapters around it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from ..layers.base_layer import Wrapper


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
            wrapper._modules[wrapper.inner_name] = inside  # noqa: SLF001 - past nn.Module's slow assignment
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
    _descend(model, "", survey, {id(model)})
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
        if module._modules:  # noqa: SLF001
            _descend(module, path + ".", survey, seen)
