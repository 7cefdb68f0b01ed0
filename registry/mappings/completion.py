"""Complete the answer of a lookup from what the registry holds of its architecture: evidence, and what is recommended.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from ...catalog.lines import to_slot_reason
from ...data import read_facts
from ...domain.choosing.query import Selection
from ...domain.choosing.recommendations import Structure, advise, find_rule
from ...domain.choosing.slot_hits import count_hits
from ...domain.layers import Coverage, Slot, find_towers
from ...domain.mappings import Mapping, Recommendation
from ...domain.methods import TARGETED, UNTARGETED, get_family, get_method
from ...domain.patterns import OPEN
from ...domain.presets import ADDED, NEVER
from ...domain.targets import Formula, TargetSpec
from ...domain.vocabulary import RANK, RECOMMENDED, count_layers
from ..servable import list_served
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
    # Of the slots alone, so that a record of the same slots with other mappings (``replace``) shares it.
    _hits: dict[TargetSpec, dict[int, int]] = field(default_factory=dict, repr=False, compare=False)

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
            return _state_gaps(mapping, is_scanned=bool(self.slots))
        evident = self.with_evidence(mapping)
        if mapping.peft_type == TARGETED:
            evident = self._rank(evident, selection or Selection(mapping.preset))
        slots = ((self.slots[n].pattern, self.slots[n]) for n in sorted(self._matched(evident.spec)))
        served = list_served(evident, self.class_name, slots)
        return _state_gaps(replace(evident, recommended=self._recommend(mapping), served=served), is_scanned=True)

    def _rank(self, mapping: Mapping, selection: Selection) -> Mapping:
        """Return a mapping of LoRA at the ranks of a selection."""
        ranked = Ranked(mapping, [self.slots[n] for n in sorted(self._matched(mapping.spec))], self.slots)
        return ranked.at(ranked.make(selection, selection.rank or RANK))

    @cached_property
    def _scanned(self) -> list[Mapping]:
        return [one for one in latest_revisions(self.mappings) if one.source.kind == "scanner"]

    def _count(self, spec: TargetSpec) -> dict[int, int]:
        """Return the number of layers that a spec matches, by the positions of the slots with any."""
        if spec not in self._hits:
            self._hits[spec] = {n: count for n, count in enumerate(count_hits(spec, self.slots)) if count}
        return self._hits[spec]

    def _matched(self, spec: TargetSpec) -> frozenset[int]:
        return frozenset(self._count(spec))

    def _list_matched(self, spec: TargetSpec) -> list[Slot]:
        """Return the slots that a spec matches; one matched in part has as many layers, and no size of its own."""
        counts = sorted(self._count(spec).items())
        whole = {n for n, count in counts if self.slots[n].count == count}
        return [self.slots[n] if n in whole else replace(self.slots[n], count=c, per_rank=None) for n, c in counts]

    def with_evidence(self, mapping: Mapping) -> Mapping:
        """Return a stated mapping with the evidence of a scanned one that matches the same slots, or of the slots.

        So is a scanned one that was narrowed to what a method can adapt. A contribution has reasons of its own.
        """
        is_complete = mapping.coverage or (mapping.source.kind == "scanner" and mapping.matched is not None)
        matched = self._matched(mapping.spec)
        if is_complete or not matched:
            return mapping
        same = self._find_same(mapping, matched)
        slots = self._list_matched(mapping.spec)
        if same:
            sized = same.peft_type == mapping.peft_type or get_method(mapping.peft_type).sized_alike
            count, formula, coverage = same.matched, same.formula if sized else None, same.coverage
        else:
            count, formula, coverage = (
                sum(x.count for x in slots),
                _sum_sizes(mapping, slots),
                self._cover(slots, matched),
            )
        found = replace(
            mapping, matched=mapping.matched or count, formula=mapping.formula or formula, coverage=coverage
        )
        if mapping.source.kind != "peft":
            return found
        reasons = same.reasons if same else (*map(to_slot_reason, slots), *self._describe_left_out(matched))
        return replace(found, reasons=(*mapping.reasons, *reasons))

    def _find_same(self, mapping: Mapping, matched: frozenset[int]) -> Mapping | None:
        """Return the scanned mapping of a method or its family that matches the same slots, if there is one."""
        related = {mapping.peft_type, stored_under(get_method(mapping.peft_type))}
        scanned = (one for one in self._scanned if one.peft_type in related)
        return next((one for one in scanned if self._matched(one.spec) == matched), None)

    def _cover(self, slots: Collection[Slot], matched: frozenset[int]) -> tuple[Coverage, ...]:
        """Return the coverage of each kind of block, at least what scanned mappings inside this one cover."""
        kinds = next((one.coverage for one in self._scanned if one.coverage), None) or self._list_blocks()
        inside = [one for one in self._scanned if self._matched(one.spec) <= matched]
        covered = []
        for kind in kinds:
            path = kind.block.partition(" (")[0]
            is_one_kind = sum(other.block.partition(" (")[0] == path for other in kinds) == 1
            reached = sum(slot.count for slot in slots if f"{slot.pattern}.".startswith(f"{path}."))
            hits = [other.hit for one in inside for other in one.coverage if other.block == kind.block]
            covered.append(replace(kind, hit=min(kind.of, reached if is_one_kind else max(hits, default=0))))
        return tuple(covered)

    def _list_blocks(self) -> tuple[Coverage, ...]:
        """Return the outermost lists of blocks by the slots, none of them covered: no mapping of the family has any."""
        counts: dict[str, int] = {}
        for slot in self.slots:
            stack, is_inside, rest = slot.pattern.partition(f".{OPEN}.")
            if is_inside and OPEN not in rest:
                counts[f"{stack}.{OPEN}"] = max(counts.get(f"{stack}.{OPEN}", 0), slot.count)
        towers = find_towers(counts, ((slot.pattern, slot.tower, slot.count) for slot in self.slots))
        return tuple(Coverage(block, 0, count, towers[block]) for block, count in counts.items())

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
    """Return the size of LoRA on these slots, or the one counted for an entry of PEFT at the verified version.

    ``None`` if a slot's is unknown, or modules are saved, whose size is.
    """
    counted = read_facts("peft_sizes.toml")
    check, size = mapping.verification, counted.get(mapping.peft_type, {}).get(mapping.name)
    if size and mapping.source.kind == "peft" and check and check.library_version == counted["library_version"]:
        return Formula(0, size)
    sizes = [slot.per_rank for slot in slots]
    known = [size for size in sizes if size is not None]
    is_sized = mapping.peft_type == TARGETED or get_method(mapping.peft_type).sized_alike
    is_known = is_sized and len(known) == len(sizes) and not mapping.modules_to_save
    return Formula(sum(known), 0) if is_known else None


def _state_gaps(mapping: Mapping, *, is_scanned: bool) -> Mapping:
    """Return an answer with a reason for each part of the evidence that it lacks."""
    return replace(mapping, reasons=(*mapping.reasons, *_list_gaps(mapping, is_scanned=is_scanned)))


def _list_gaps(mapping: Mapping, *, is_scanned: bool) -> Iterator[str]:
    method, every = get_method(mapping.peft_type), "no size, coverage or verification"
    if method.family in UNTARGETED:
        yield f"{every}: it names no layers"
    elif not is_scanned:
        yield f"{every}: no scan of {mapping.library}:{mapping.name} is on record"
    else:
        if mapping.formula is None:
            is_sized = method.name == method.family or method.sized_alike
            other = (
                f"{method.name} sizes its adapters by settings of its own; peft's print_trainable_parameters() counts"
            )
            yield "no size: the slots on record do not hold it; a scan counts it" if is_sized else f"no size: {other}"
        if not mapping.coverage and not mapping.spec.saves_alone:
            yield "no coverage: no repeated block is on record"
        if mapping.verification is None:
            yield "no verification: none is on record for these targets"
