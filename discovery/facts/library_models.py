"""Models of a library inside a user's own module: everything else in it was made anew."""

from collections.abc import Collection, Sequence

from torch import nn

from ...data import read_facts
from .layers import Site, repeats_blocks


def find_library_models(sites: Sequence[Site], configured: Collection[str]) -> tuple[str, ...]:
    """Return the paths of the outermost library models in a user's own module; none in a model of a library.

    Args:
        sites: The modules of the model.
        configured: Paths of those that carry a configuration of their own. Inside a module without one they count,
            wherever their classes are from.
    """
    if is_library_class(type(sites[0].module)):
        return ()
    own = () if "" in configured else configured
    found: list[str] = []
    for site in sites[1:]:
        if any(site.path.startswith(f"{outer}.") for outer in found) or site.block is not None:
            continue
        is_model = is_library_class(type(site.module)) and any(map(repeats_blocks, site.module.modules()))
        if is_model or site.path in own:
            found.append(site.path)
    return tuple(found)


def is_library_class(module_class: type[nn.Module]) -> bool:
    """Return whether a class is of a library's models, or derived from one of them that has a forward."""
    packages = tuple(read_facts("heads.toml")["model_packages"])
    from_library = [base for base in module_class.__mro__ if f"{base.__module__}.".startswith(packages)]
    return module_class in from_library or any("forward" in vars(base) for base in from_library)
