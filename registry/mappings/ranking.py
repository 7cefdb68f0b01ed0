"""Ranks of LoRA on the layers that a mapping matches: those of routed experts, and those that use a budget.

Those of experts are the same in every block, and named by slots; a budget counts the layers one by one. Imports no
SQLAlchemy, since ``sqlite_lookup`` does without.
"""

import re
from collections.abc import Mapping as Values
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from ...domain.choosing.query import Selection
from ...domain.choosing.ranks import Offer, Ranks, fit_budget, parse_budget, rank_experts, scale_alphas
from ...domain.choosing.stored_layers import StoredLayers
from ...domain.layers import Layer, Slot
from ...domain.mappings import Mapping
from ...domain.patterns import OPEN, list_prefixes, pattern_of
from ...domain.presets import EXPERT
from ...domain.targets import Formula, find_hits
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

    def make(self, selection: Selection, rank: int) -> Ranks:
        """Return the ranks of the layers for a selection."""
        return make_ranks(self.mapping, self.layers, selection, rank)

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


def make_ranks(mapping: Mapping, layers: Sequence[Layer], selection: Selection, rank: int) -> Ranks:
    """Return the ranks of the layers of a mapping for a selection."""
    active = mapping.prompt_facts.active_experts if mapping.prompt_facts else None
    return rank_experts(layers, rank, replace(selection, preset=mapping.preset).rank_of_experts, active)


@dataclass(frozen=True)
class Counted:
    """A mapping of LoRA with its layers one by one.

    Attributes:
        mapping: The mapping, at the common rank.
        stored: The layers of its architecture.
    """

    mapping: Mapping
    stored: StoredLayers

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers it matches."""
        return find_hits(self.mapping.spec, self.stored.sizes)

    @cached_property
    def sizes(self) -> Values[str, int]:
        """The parameters that each rank adds on each layer, by path."""
        sizes = ((layer, self.stored.sizes[layer]) for layer in self.layers)
        return {layer.path: size.per_rank for layer, size in sizes if size}

    @property
    def gap(self) -> str:
        """Why no budget can be counted; empty if it can."""
        if not self.stored.is_known or self.mapping.formula is None:
            return "the sizes of its layers are not on record"
        is_exact = len(self.sizes) == len(self.layers) and sum(self.sizes.values()) == self.mapping.per_rank
        return "" if is_exact else "the sizes on record are not those of the layers that it matches"

    def make(self, selection: Selection, rank: int) -> Ranks:
        """Return the ranks of the layers for a selection."""
        return make_ranks(self.mapping, self.layers, selection, rank)

    def at(self, ranks: Ranks) -> Mapping:
        """Return the mapping at these ranks."""
        fields = ranks.to_fields(self.sizes, self.mapping.fixed or 0, (*self.stored.modules, *self.stored.bare))
        kinds = {(pattern_of(layer.path), ranks.others.get(layer.path)) for layer in self.layers}
        is_single = len(kinds) > len({pattern for pattern, _ in kinds})
        says = ["ranks of single layers are those of the scanned depth"] if is_single else []
        return replace(self.mapping, **fields, reasons=(*self.mapping.reasons, *ranks.reasons, *says))


def choose_within_budget(reference: str, selection: Selection, offers: Sequence[Counted]) -> Mapping:
    """Return the first mapping that uses a budget at the largest ranks within it, or else the largest.

    Args:
        reference: The architecture.
        selection: What is selected, with the budget.
        offers: The mappings that may use it, the one preferred first.

    Raises:
        InvalidRequest: If the smallest adapter is larger, or what to count is not on record.
    """
    uncounted = [counted for counted in offers if counted.gap]
    if len(uncounted) == len(offers):
        command = f"loradar scan {reference}"
        message = f"No budget can be counted for {reference} without a model: {uncounted[0].gap}. "
        message += f"Scan it, with the same options: {command}."
        raise InvalidRequest(message, field="budget", reference=reference, command=command)
    facts = offers[0].mapping.prompt_facts
    budget = parse_budget(selection.budget, facts.parameters if facts else None)
    counted = (
        Offer(x.layers, x.sizes, x.mapping.fixed or 0, partial(x.make, selection), x.at)
        for x in offers
        if x not in uncounted
    )
    best, says = fit_budget(reference, selection.budget, budget, counted)
    without = [f"not counted: preset {x.mapping.preset!r}, because {x.gap}" for x in uncounted]
    return replace(best, reasons=(says, *best.reasons, *without))
