"""Describe which placements of adapters train best: the results of ``bench/placement.py``."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar, Literal

from ...schema import Config, from_json, schema_config

Standing = Literal["worse", "better", "level"]


@dataclass(frozen=True, slots=True)
class PlacementResult:
    """The results of adapters at one placement on one task, as means over the seeds."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    name: str
    """The preset, or ``random``: half of the layers of ``all-linear``, others for each seed."""
    loss: float
    """Test loss."""
    accuracy: float | None
    """Test accuracy; null where there are no labels."""
    layers: int
    rank: int | None
    """Rank of every adapter; null where it differs by seed."""
    parameters: int
    """Parameters of the adapters."""
    rate: float
    """Learning rate, chosen by a seed that is not among those tested."""
    difference: float | None = None
    """Loss above that of ``recommended``, in percent of what that gains over the frozen network; null for itself."""
    half: float | None = None
    """Half of the 95% interval of the difference, by a paired t test."""

    @property
    def standing(self) -> Standing:
        """Where it stands against ``recommended``: ``level`` where the interval has 0 in it."""
        if self.difference is None or self.half is None or abs(self.difference) <= self.half:
            return "level"
        return "worse" if self.difference > 0 else "better"


@dataclass(frozen=True, slots=True)
class PlacementTask:
    """A network that was adapted at every placement, at equal size."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    name: str
    family: str
    """Family of architectures, as in recommendations."""
    network: str
    shift: str
    """What the network was adapted to."""
    frozen: float
    """Test loss without an adapter."""
    best: str
    """The preset with the lowest mean loss."""
    standing: Standing
    """Where that preset stands against ``recommended``; ``level`` if it is ``recommended``."""
    same: tuple[str, ...]
    """Presets with the layers and ranks of ``recommended``."""
    results: tuple[PlacementResult, ...]
    """The placements that were trained, ``recommended`` first."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The results of all tasks."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (PLACEMENT_EXAMPLE,))

    seeds: int
    """Seeds that every placement was tested on."""
    tasks: tuple[PlacementTask, ...]


@cache
def load_placement() -> Placement:
    """Return the packaged results."""
    content = (resources.files("loradar.data") / "placement.json").read_text("utf-8")
    return from_json(Placement, json.loads(content))


_RECOMMENDED = PlacementResult("recommended", 2.5864, None, 28, 4, 19456, 0.01)
_DEFAULT = PlacementResult("default", 2.7517, None, 8, 22, 19712, 0.01, 10.0924, 3.1076)
PLACEMENT_EXAMPLE: Placement = Placement(
    5,
    (
        PlacementTask(
            "llama",
            "decoder",
            "llama, 4 blocks",
            "news to Python sources, next character",
            4.2243,
            "recommended",
            "level",
            ("all-linear",),
            (_RECOMMENDED, _DEFAULT),
        ),
    ),
)
