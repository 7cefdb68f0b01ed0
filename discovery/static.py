"""Read a model's own layers, towers and declared facts without a forward."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from ..domain.layers import Layer
from ..errors import ScanFailed
from .facts.layers import Site, list_layers, walk
from .facts.model_facts import ModelFacts, collect_facts
from .facts.towers import TowerMap, map_towers
from .names.static_roles import label_layer, label_layers
from .names.surroundings import Surroundings
from .proposals import saved_heads


@dataclass(frozen=True)
class StaticModel:
    """The static description of a model: its modules, layers and configuration.

    Attributes:
        facts: Identity, models inside it and declared heads.
        sites: Every module, in the order of ``named_modules``.
        layers: Its layers, without roles.
        towers: Which tower a path belongs to.
    """

    facts: ModelFacts
    sites: tuple[Site, ...]
    layers: tuple[Layer, ...]
    towers: TowerMap

    @cached_property
    def module_paths(self) -> tuple[str, ...]:
        """Every module path of the model."""
        return tuple(site.path for site in self.sites)

    @cached_property
    def _around(self) -> Surroundings:
        return Surroundings(self.facts, self.towers, self.module_paths, self.layers)

    def label_all(self) -> tuple[Layer, ...]:
        """Return every layer with the role that names and structure give it."""
        return label_layers(self._around)

    def label(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        """Return some of the layers with static roles; the last layer of a custom module is no head yet."""
        return tuple(label_layer(layer, self._around) for layer in layers)

    def find_saved(self, labelled: Iterable[Layer]) -> tuple[str, ...]:
        """Return the heads to train in full, given every layer that may be a head or a token embedding."""
        return saved_heads(tuple(labelled), self.facts)


def read_model(model: nn.Module) -> StaticModel:
    """Read a model's modules and configuration; no forward runs and nothing is changed.

    Raises:
        ScanFailed: If an attribute of a user's module fails when it is read.
    """
    try:
        sites = (*walk(model),)
        facts = collect_facts(model, sites)
        return StaticModel(facts, sites, list_layers(model, sites), map_towers(facts))
    except RuntimeError as error:  # a property that fails or recurs without end
        raise unreadable(model, error) from error


def unreadable(model: nn.Module, error: RuntimeError) -> ScanFailed:
    """Return the error for a model with an attribute that fails when it is read."""
    cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
    message = f"{type(model).__name__} could not be read ({cause}). Scan it without what fails, or by a reference."
    return ScanFailed(message, reference=type(model).__name__, cause=cause)
