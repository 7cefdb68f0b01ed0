"""Complete the answer of a lookup from what the registry holds of its architecture: evidence, and what is recommended.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from ...catalog.lines import find_targets, to_slot_reason
from ...domain.choosing.query import Selection
from ...domain.choosing.recommendations import Structure, advise, find_rule
from ...domain.layers import Coverage, Slot
from ...domain.mappings import Mapping, Recommendation
from ...domain.methods import TARGETED, get_family, get_method
from ...domain.presets import ADDED, NEVER
from ...domain.targets import Formula, TargetSpec
from ...domain.vocabulary import RANK, RECOMMENDED, count_layers
from .precedence import latest_revisions, of_preset, stored_under
from .ranking import Ranked


@dataclass(frozen=True)
class Record:
    """What the registry holds of one architecture.

    Attributes:
        mappings: Its mappings for a method and its family, of every preset.
        slots: Its slots, in the order of the model.
        class_name: The class that was scanned.
    """

    mappings: Sequence[Mapping]
    slots: tuple[Slot, ...]
    class_name: str | None = None

    @classmethod
    def of_rows(cls, mappings: Sequence[Mapping], rows: Iterable[dict[str, Any]]) -> Self:
        """Return the record of mappings and of the rows of ``stored_names.RECORD``."""
        owners = [(row.pop("class_name"), Slot(**row)) for row in rows]
        return cls(mappings, tuple(slot for _, slot in owners), owners[0][0] if owners else None)

    def complete(self, mapping: Mapping, selection: Selection | None = None) -> Mapping:
        """Return an answer with size, coverage and reasons, if it was stated without, and what is recommended.

        ``selection`` gives ranks, by default those of the mapping's preset.
        """
        if not self.slots or not mapping.spec.list_targets():
            return mapping
        evident = self.with_evidence(mapping)
        if mapping.peft_type == TARGETED:
            evident = self._rank(evident, selection or Selection(mapping.preset))
        return replace(evident, recommended=self._recommend(mapping))

    def _rank(self, mapping: Mapping, selection: Selection) -> Mapping:
        """Return a mapping of LoRA at the ranks of a selection."""
        ranked = Ranked(mapping, [self.slots[n] for n in sorted(self._matched(mapping.spec))], self.slots)
        return ranked.at(ranked.make(selection, selection.rank or RANK))

    @cached_property
    def _scanned(self) -> list[Mapping]:
        return [one for one in latest_revisions(self.mappings) if one.source.kind == "scanner"]

    def _matched(self, spec: TargetSpec) -> frozenset[int]:
        return frozenset(n for n, target in enumerate(find_targets(spec, self.slots)) if target is not None)

    def with_evidence(self, mapping: Mapping) -> Mapping:
        """Return a stated mapping with the evidence of a scanned one that matches the same slots, or of the slots.

        A contribution has reasons of its own.
        """
        matched = self._matched(mapping.spec) if mapping.source.kind != "scanner" else frozenset()
        if not matched or mapping.coverage:
            return mapping
        related = {mapping.peft_type, stored_under(get_method(mapping.peft_type))}
        scanned = (one for one in self._scanned if one.peft_type in related)
        same = next((one for one in scanned if self._matched(one.spec) == matched), None)
        slots = [self.slots[n] for n in sorted(matched)]
        if same:
            sized = same.peft_type == mapping.peft_type or get_method(mapping.peft_type).sized_alike
            count, formula, coverage = same.matched, same.formula if sized else None, same.coverage
            reasons = same.reasons
        else:
            count, formula, coverage = (
                sum(x.count for x in slots),
                _sum_sizes(mapping, slots),
                self._cover(slots, matched),
            )
            reasons = (*map(to_slot_reason, slots), *self._describe_left_out(matched))
        return replace(
            mapping,
            matched=mapping.matched or count,
            formula=mapping.formula or formula,
            coverage=coverage,
            reasons=mapping.reasons if mapping.source.kind == "community" else (*mapping.reasons, *reasons),
        )

    def _cover(self, slots: Collection[Slot], matched: frozenset[int]) -> tuple[Coverage, ...]:
        """Return the coverage of each kind of block, at least what scanned mappings inside this one cover."""
        kinds = next((one.coverage for one in self._scanned if one.coverage), ())
        inside = [one for one in self._scanned if self._matched(one.spec) <= matched]
        covered = []
        for kind in kinds:
            path = kind.block.partition(" (")[0]
            is_one_kind = sum(other.block.partition(" (")[0] == path for other in kinds) == 1
            reached = sum(slot.count for slot in slots if f"{slot.pattern}.".startswith(f"{path}."))
            hits = [other.hit for one in inside for other in one.coverage if other.block == kind.block]
            covered.append(replace(kind, hit=min(kind.of, reached if is_one_kind else max(hits, default=0))))
        return tuple(covered)

    def _describe_left_out(self, matched: frozenset[int]) -> list[str]:
        """Return a reason for each role of the slots that are not matched and that no preset but all would adapt."""
        counts: dict[str, int] = {}
        for position, slot in enumerate(self.slots):
            if (
                position not in matched
                and slot.role in NEVER | ADDED
                and slot.kind not in ("norm", "embedding", "other")
            ):
                counts[slot.role] = counts.get(slot.role, 0) + slot.count
        return [f"left out: {count_layers(count, role)}" for role, count in sorted(counts.items())]

    # What is recommended

    def _recommend(self, mapping: Mapping) -> Recommendation | None:
        """Return what the evidence recommends beside a mapping of LoRA's family; ``None`` without a scan."""
        method = get_method(mapping.peft_type)
        best = next(iter(of_preset(self._scanned, RECOMMENDED)), None)
        matched = self._matched(mapping.spec)
        if best is None or not matched or RECOMMENDED not in get_family(method.family).presets:
            return None  # the slots are in the names of the newest version alone
        wanted = self._matched(best.spec)
        towers = {self.slots[n].tower for n in wanted}
        rule = find_rule(Structure.of_slots(self.slots, towers, self.class_name))
        more = {self.slots[n].role: None for n in sorted(wanted - matched)}
        less = {self.slots[n].role: None for n in sorted(matched - wanted)}
        is_sized = method.name == TARGETED or method.sized_alike
        formula = self._rank(best, Selection(RECOMMENDED)).formula if is_sized else None
        return advise(rule, [*more], [*less], formula)


def _sum_sizes(mapping: Mapping, slots: Iterable[Slot]) -> Formula | None:
    """Return the size of LoRA on these slots; ``None`` if one is unknown, or modules are saved, whose size is."""
    sizes = [slot.per_rank for slot in slots]
    known = [size for size in sizes if size is not None]
    is_known = mapping.peft_type == TARGETED and len(known) == len(sizes) and not mapping.modules_to_save
    return Formula(sum(known), 0) if is_known else None
