"""Ranks of LoRA on the slots that a mapping matches: those of routed experts, and those that use a budget.

Counts are exact where the sizes of the slots add up to the mapping's own. Imports no SQLAlchemy, since
``sqlite_lookup`` does without.
"""

import re
from collections.abc import Mapping as Values
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from ...domain.choosing.query import Selection
from ...domain.choosing.ranks import TIGHT, Offer, Ranks, fit_budget, parse_budget, rank_experts, scale_alphas
from ...domain.layers import Layer, Slot
from ...domain.mappings import Mapping
from ...domain.patterns import OPEN, list_prefixes
from ...domain.presets import EXPERT
from ...domain.targets import Formula
from ...domain.vocabulary import CONV_KINDS, list_some
from ...errors import InvalidRequest

ANOTHER_BLOCK = "7"
"""The index of a block that patterns of ranks are tried on, beside the first."""


def path_of(slot: Slot, index: str = "0") -> str:
    """Return the path of a layer of a slot, that of the first by default."""
    return slot.pattern.replace(OPEN, index)


@dataclass(frozen=True)
class Ranked:
    """A mapping of LoRA with the slots it matches, at the common rank.

    Attributes:
        mapping: The mapping.
        slots: The slots it matches.
        every: All slots of its architecture.
    """

    mapping: Mapping
    slots: Sequence[Slot]
    every: Sequence[Slot]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """A layer for each path pattern."""
        slots = {path_of(slot): slot for slot in self.slots}
        return tuple(Layer(path, slot.kind, "", (), role=slot.role) for path, slot in slots.items())

    @cached_property
    def sizes(self) -> Values[str, int] | None:
        """The parameters that each rank adds on all layers of a pattern; ``None`` if they are not known exactly."""
        sizes = dict.fromkeys((layer.path for layer in self.layers), 0)
        for slot in self.slots:
            sizes[path_of(slot)] += slot.per_rank or 0
        is_known = self.mapping.per_rank == sum(sizes.values()) and all(x.per_rank is not None for x in self.slots)
        return sizes if is_known else None

    @property
    def gap(self) -> str:
        """Why no budget can be counted; empty if it can."""
        unsized = self.sizes is None
        grouped = [slot.pattern for slot in self.slots if slot.kind in CONV_KINDS]
        if unsized or self.mapping.formula is None:
            return "the sizes of its layers are not on record"
        return f"the groups of its convolutions ({list_some(grouped, 1)}) are not on record" if grouped else ""

    def make(self, selection: Selection, rank: int) -> Ranks:
        """Return the ranks of the layers for a selection."""
        active = self.mapping.prompt_facts.active_experts if self.mapping.prompt_facts else None
        chosen = replace(selection, preset=self.mapping.preset).rank_of_experts
        return rank_experts(self.layers, rank, chosen, active)

    def at(self, ranks: Ranks) -> Mapping:
        """Return the mapping at these ranks."""
        if not (ranks.others or ranks.reasons):
            return replace(self.mapping, rank=ranks.rank)
        # a layer of another rank may have the name of one of no expert in other blocks
        others = {slot.pattern for slot in self.slots if slot.role not in EXPERT}
        if any(x.role in EXPERT and x.pattern in others and path_of(x) in ranks.others for x in self.slots):
            says = "experts at the common rank: dense layers of other blocks have their names; a scan tells them apart"
            return replace(self.mapping, rank=ranks.rank, reasons=(*self.mapping.reasons, says))
        patterns = self._name(ranks)
        sizes, formula = self.sizes, None if ranks.others else self.mapping.formula
        if sizes is not None and formula is None and self.mapping.formula is not None:
            apart = sum(sizes[path] * rank for path, rank in ranks.others.items())
            per_rank = sum(size for path, size in sizes.items() if path not in ranks.others)
            formula = Formula(per_rank, apart + self.mapping.formula.fixed)
        return replace(
            self.mapping,
            rank=ranks.rank,
            rank_pattern=patterns or None,
            alpha_pattern=scale_alphas(patterns, ranks.rank) or None,
            formula=formula,
            reasons=(*self.mapping.reasons, *ranks.reasons),
        )

    def _name(self, ranks: Ranks) -> dict[str, int]:
        """Return PEFT's ``rank_pattern``, which holds in every block: by whole paths where a shorter one does not."""
        paths = [prefix for slot in self.every for prefix in list_prefixes(path_of(slot))]
        patterns = ranks.name([*dict.fromkeys(paths)])
        wanted = {path_of(slot, ANOTHER_BLOCK): ranks.others.get(path_of(slot)) for slot in self.slots}
        rules = [(re.compile(rf"(?:.*\.)?(?:{pattern})"), rank) for pattern, rank in patterns.items()]
        found = {path: next((rank for rule, rank in rules if rule.fullmatch(path)), None) for path in wanted}
        if found == wanted:
            return patterns
        opened = {slot.pattern: ranks.others.get(path_of(slot)) for slot in self.slots}
        named = {re.escape(pattern).replace(re.escape(OPEN), r"\d+"): rank for pattern, rank in opened.items()}
        return {regex: rank for regex, rank in named.items() if rank is not None}


def choose_within_budget(reference: str, selection: Selection, offers: Sequence[Ranked]) -> Mapping:
    """Return the first mapping that uses a budget at the largest ranks within it, or else the largest.

    Args:
        reference: The architecture.
        selection: What is selected, with the budget.
        offers: The mappings that may use it, the one preferred first.

    Raises:
        InvalidRequest: If the smallest adapter is larger, or what to count is not on record.
    """
    uncounted = [ranked for ranked in offers if ranked.gap]
    if selection.blocks or len(uncounted) == len(offers):
        why = "the sizes of single blocks are not on record" if selection.blocks else uncounted[0].gap
        command = f"loradar scan {reference}"
        message = f"No budget can be counted for {reference} without a model: {why}. Scan it, with the same options: "
        raise InvalidRequest(f"{message}{command}.", field="budget", reference=reference, command=command)
    facts = offers[0].mapping.prompt_facts
    budget = parse_budget(selection.budget, facts.parameters if facts else None)
    counted = (
        Offer(x.layers, x.sizes or {}, x.mapping.fixed or 0, partial(x.make, selection), x.at)
        for x in offers
        if x not in uncounted
    )
    best, says = fit_budget(reference, selection.budget, budget, counted)
    used = (best.trainable or 0) / budget
    coarse = [f"uses {used:.0%} of the budget: on a model, single layers get other ranks"] if used < TIGHT else []
    without = [f"not counted: preset {x.mapping.preset!r}, because {x.gap}" for x in uncounted]
    return replace(best, reasons=(says, *best.reasons, *coarse, *without))
