"""Describe two mappings side by side, of one architecture or of two: their targets and the layers behind them."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ...schema import Config, schema_config
from ..layers import SLOT_EXAMPLE, Slot
from ..mappings import MAPPING_EXAMPLE, Mapping
from ..vocabulary import Role, Tower

PairDifference = Literal["missing", "name", "kind", "count", "size", "target"]
"""What two slots differ in: one is missing, their name, kind, number of layers or size; or one mapping adapts fewer."""


@dataclass(frozen=True, slots=True)
class SlotPair:
    """The slots of both sides that do the same; null where one side has none."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    role: Role
    tower: Tower
    left: Slot | None
    right: Slot | None
    left_adapted: int
    """Number of its layers that the left mapping matches."""
    right_adapted: int
    differences: tuple[PairDifference, ...]


@dataclass(frozen=True, slots=True)
class FieldPair:
    """One field of both target specs; a regex is a list of one."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    name: str
    both: tuple[str, ...]
    left: tuple[str, ...]
    """What only the left one has."""
    right: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two mappings and the slots of their architectures."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SIDE_BY_SIDE_EXAMPLE,))

    left: Mapping
    right: Mapping
    fields: tuple[FieldPair, ...]
    """The fields that name layers, those that one of them has."""
    words: tuple[str, ...]
    """What the right architecture has that the left one has not, in words; empty if they are one."""
    pairs: tuple[SlotPair, ...]
    """The layers of both, by role; empty if one was never scanned."""


SIDE_BY_SIDE_EXAMPLE: SideBySide = SideBySide(
    MAPPING_EXAMPLE,
    replace(MAPPING_EXAMPLE, preset="attention", target_modules=("q_proj", "k_proj", "v_proj", "o_proj")),
    (FieldPair("target_modules", ("q_proj", "v_proj"), (), ("k_proj", "o_proj")),),
    (),
    (SlotPair("attention.query", "language", SLOT_EXAMPLE, SLOT_EXAMPLE, 32, 32, ()),),
)
