"""Match target specs with slots: a slot by its first layer, or each of its layers where a spec names an index."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..layers import Slot
from ..patterns import OPEN
from ..places import BlockPattern
from ..targets import TargetMatcher, TargetSpec
from .members import list_paths

Matched = tuple[str | None, ...]
"""The target that matches each slot, if one does."""
_INDEX = re.compile(r"(?<![A-Za-z_\d])\d")
"""The start of an index in a name or a regex."""


@dataclass(frozen=True)
class SlotMatcher:
    """The targets of one spec, to be matched with layers of slots."""

    spec: TargetSpec

    @cached_property
    def _targets(self) -> tuple[TargetMatcher, TargetMatcher, TargetMatcher]:
        spec = self.spec
        targets = spec.target_modules, spec.target_parameters, spec.exclude_modules
        modules, parameters, excluded = (TargetMatcher(each or ()) for each in targets)
        return modules, parameters, excluded

    @cached_property
    def _left_alone(self) -> list[BlockPattern]:
        return [BlockPattern.parse(text) for text in self.spec.exclude_blocks or ()]

    @property
    def names_indices(self) -> bool:
        """Whether the layers of one slot may differ: a target or an exclusion names an index."""
        spec = self.spec
        return bool(_INDEX.search(f"{spec.target_modules} {spec.target_parameters} {spec.exclude_modules}"))

    def find(self, slot: Slot, path: str) -> str | None:
        """Return the target that matches a layer of a slot, or ``None``; blocks left alone match none."""
        modules, parameters, excluded = self._targets
        if slot.kind == "expert_parameter":
            return parameters.find(path)
        target = modules.find(path)
        is_apart = any(each.is_of(slot.pattern, slot.blocks) for each in self._left_alone)
        return None if target is None or is_apart or excluded.find(path) is not None else target


def find_targets(spec: TargetSpec, slots: Iterable[Slot]) -> Matched:
    """Return the target that matches the first layer of each slot, or ``None``."""
    matcher = SlotMatcher(spec)
    return tuple(matcher.find(slot, slot.pattern.replace(OPEN, "0")) for slot in slots)


def count_hits(spec: TargetSpec, slots: Sequence[Slot]) -> tuple[int, ...]:
    """Return the number of layers of each slot that a spec matches; all or none where its layers are not on record."""
    matcher = SlotMatcher(spec)
    is_exact = matcher.names_indices
    return tuple(
        sum(matcher.find(slot, path) is not None for path in list_paths(slot))
        if is_exact and slot.members is not None
        else slot.count * (matcher.find(slot, slot.pattern.replace(OPEN, "0")) is not None)
        for slot in slots
    )
