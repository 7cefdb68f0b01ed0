"""The layers of an architecture one by one, as its slots have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..layers import Layer, Slot
from ..patterns import list_prefixes
from .members import Size, list_members

UNSEEN = 10**6
"""The index of a member of a list that no scan saw."""


@dataclass(frozen=True)
class StoredLayers:
    """The layers of an architecture one by one, as its slots have them.

    Attributes:
        slots: Its slots.
    """

    slots: Sequence[Slot]

    @property
    def is_known(self) -> bool:
        """Whether they are on record: scans of earlier versions have none."""
        return all(slot.members is not None for slot in self.slots)

    @cached_property
    def sizes(self) -> dict[Layer, Size | None]:
        """The size of an adapter on each layer; ``None`` if none fits."""
        return {layer: size for slot in self.slots for layer, size in list_members(slot)}

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The paths of all modules on record.

        Other members of a list, such as a dropout, are no layers and not on record: one stands for them, so that none
        is matched.
        """
        named = [layer.path for layer in self.sizes if layer.kind != "expert_parameter"]
        listed = dict.fromkeys(path.rpartition(".")[0] for path in named if path.rpartition(".")[2].isdecimal())
        every = (*named, *(f"{path}.{UNSEEN}" for path in listed))
        return tuple(dict.fromkeys(prefix for path in every for prefix in list_prefixes(path)))

    @cached_property
    def bare(self) -> tuple[str, ...]:
        """The paths of bare parameters."""
        return tuple(layer.path for layer in self.sizes if layer.kind == "expert_parameter")
