"""Checks of targets against a model: computed weights, and names that PEFT takes for more modules."""

from collections.abc import Iterable, Sequence

from torch import nn

from ...discovery import FITTING_KINDS, kind_of
from ...domain.targets import TargetMatcher, Targets
from ...errors import InvalidConfig
from ...warn import warn
from ..layers.base_layer import list_computed
from .host_model import Site, Survey


def check_computed(survey: Survey, targets: Targets) -> None:
    """Reject bare parameters that are computed from others, so that no update of theirs would reach the forward."""
    for path, site in {"": Site(survey.model, survey.model, ""), **survey.sites}.items() if targets else ():
        for name in list_computed(site.module):
            key = f"{path}.{name}".lstrip(".")
            if TargetMatcher(targets).find(key) is not None:
                is_layer = isinstance(site.module, nn.Linear) or kind_of(site.module) in FITTING_KINDS
                way_out = f"name {path!r} in target_modules" if is_layer else "leave it out"
                why = "is no parameter, but computed (parametrization, weight norm, pruning)"
                message = f"target_parameters: {key!r} {why}: {way_out}"
                raise InvalidConfig(f"{message}, or remove what computes it before the injection.", path=key)


def warn_of_endings(survey: Survey, names: Iterable[str], saved: Sequence[str]) -> None:
    """Warn of modules that end with a saved name, but have another: PEFT, which compares endings, trains them too."""
    inside = tuple(f"{path}." for path in saved)
    for name in names:
        others = [path for path in list_endings(survey, name) if not f"{path}.".startswith(inside)]
        if others:
            more = f" and {len(others) - 1} more" if others[1:] else ""
            message = f"modules_to_save: {name!r} is a whole name here, and PEFT trains {others[0]!r}{more} with it"
            warn(f"{message}: name them too if you want that.")


def list_endings(survey: Survey, name: str) -> list[str]:
    """Return the paths of the modules with parameters whose own names end with a name, and are longer."""
    found = (path for path in survey.paths if path.endswith(name) and not f".{path}".endswith(f".{name}"))
    return [path for path in found if next(survey.sites[path].module.parameters(), None) is not None]
