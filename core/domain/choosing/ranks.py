"""Choose ranks: those of experts by the share of tokens that each sees, and those that fill a budget of parameters."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import Generic, Protocol, TypeVar

from ...errors import InvalidRequest
from ..layers import Layer
from ..patterns import name_targets, pattern_of
from ..presets import EXPERT
from ..vocabulary import RANK, list_some
from .query import ExpertRank

ALPHA = 8
"""PEFT's default ``lora_alpha``, for which alphas are stated."""
TIGHT = 0.9
"""The share of a budget that a choice of ranks should use."""
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) *%")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?) *([kmb]?)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def parse_budget(value: object, total: int | None) -> int:
    """Return the number of parameters of a budget: a number, ``20M``, or a share of the base model such as ``0.5%``.

    Raises:
        InvalidRequest: If it cannot be read, or is a share of a model of unknown size.
    """
    text = str(value).strip().lower().replace("_", "").replace(",", "")
    share, number = _PERCENT.fullmatch(text), _NUMBER.fullmatch(text)
    if share and total is None:
        message = f"budget={value!r} is a share of a model whose size is not on record. Give a number of parameters."
        raise InvalidRequest(message, field="budget", value=str(value))
    found = int(float(share[1]) / 100 * (total or 0)) if share else 0
    found = int(float(number[1]) * _UNITS[number[2]]) if number else found
    if isinstance(value, bool) or found <= 0:
        message = f"budget={value!r} is no number of parameters: give 20_000_000, '20M' or '0.5%'."
        raise InvalidRequest(message, field="budget", value=str(value))
    return found


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of every layer of a choice.

    Attributes:
        rank: The rank of all layers but those below.
        others: Other ranks, by paths of layers.
        reasons: Why, in words.
    """

    rank: int = RANK
    others: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def count(self, sizes: Mapping[str, int]) -> int:
        """Return the number of parameters trained, given those each rank of a layer adds, by path."""
        return sum(size * self.others.get(path, self.rank) for path, size in sizes.items())

    def name(self, every: Sequence[str]) -> dict[str, int]:
        """Return PEFT's ``rank_pattern``, whose regexes are exact among these paths."""
        by_rank: defaultdict[int, list[str]] = defaultdict(list)
        for path, rank in self.others.items():
            by_rank[rank].append(path)
        patterns: dict[str, int] = {}
        for rank, paths in by_rank.items():
            targets = name_targets(paths, every)
            regexes = [targets] if isinstance(targets, str) else map(re.escape, targets)
            patterns |= dict.fromkeys(regexes, rank)
        return patterns


def scale_alphas(patterns: Mapping[str, int], rank: int, alpha: float = ALPHA, power: float = 1) -> dict[str, float]:
    """Return the ``alpha_pattern`` that scales layers of other ranks as those of ``rank``.

    ``power`` is 1, or 0.5 where the scaling is by the root of the rank (rsLoRA).
    """
    return {pattern: alpha * (own / rank) ** power for pattern, own in patterns.items()}


def rank_experts(layers: Sequence[Layer], rank: int, expert_rank: ExpertRank, active: int | None) -> Ranks:
    """Return ranks with those of the routed experts set apart.

    Args:
        layers: The layers of the choice.
        rank: The rank of all others.
        expert_rank: The rank of experts.
        active: The number of experts that run for a token, if known.
    """
    experts = [layer.path for layer in layers if layer.role in EXPERT]
    if not experts or expert_rank in ("shared", None):
        return Ranks(rank)
    if isinstance(expert_rank, int):
        own, why = expert_rank, "as given"
    elif active is None:
        return Ranks(rank, {}, (f"experts at rank {rank}: the number that run for a token is not known",))
    else:
        own, why = max(1, rank // active), f"{rank} over the {active} that run for a token"
    return Ranks(rank, dict.fromkeys(experts, own) if own != rank else {}, (f"experts at rank {own}: {why}",))


def fill_budget(
    layers: Sequence[Layer], sizes: Mapping[str, int], budget: int, make: Callable[[int], Ranks]
) -> Ranks | None:
    """Return the largest ranks whose parameters are within a budget; ``None`` if the smallest are not.

    Where a step of the rank is coarse, some slots get one step more than the others.

    Args:
        layers: The layers of the choice.
        sizes: The parameters that each rank of a layer adds, by path.
        budget: The parameters to train at most.
        make: Make the ranks of all layers from one.
    """
    step = find_step(layers)
    if make(step).count(sizes) > budget:
        return None
    if not layers:  # modules trained in full alone
        return make(RANK)
    low, high = 1, 2
    while make(high * step).count(sizes) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if make(middle * step).count(sizes) <= budget else (low, middle)
    ranks = make(low * step)
    return ranks if ranks.count(sizes) >= TIGHT * budget else _add_step(ranks, layers, sizes, budget, step)


class Ranked(Protocol):
    """A proposal or a mapping at some ranks."""

    @property
    def preset(self) -> str:
        """The preset."""

    @property
    def rank(self) -> int:
        """The rank of most layers."""

    @property
    def trainable(self) -> int | None:
        """The parameters trained at these ranks."""


RankedT = TypeVar("RankedT", bound=Ranked)


@dataclass(frozen=True, slots=True)
class Offer(Generic[RankedT]):
    """A choice of layers that may use a budget.

    Attributes:
        layers: The layers, or one for each slot.
        sizes: The parameters that each rank of a layer adds, by path.
        fixed: The parameters trained at any rank.
        make: Make the ranks of all layers from one.
        at: Return the choice at some ranks.
    """

    layers: Sequence[Layer]
    sizes: Mapping[str, int]
    fixed: int
    make: Callable[[int], Ranks]
    at: Callable[[Ranks], RankedT]


def fit_budget(reference: str, given: object, budget: int, offers: Iterable[Offer[RankedT]]) -> tuple[RankedT, str]:
    """Return the first choice that uses a budget at the largest ranks within it, or else the largest, and the reason.

    Args:
        reference: The model, for messages.
        given: The budget as it was given.
        budget: The parameters to train at most.
        offers: The choices, the one preferred first.

    Raises:
        InvalidRequest: If the smallest adapter is larger.
    """
    best: RankedT | None = None
    smallest = []
    for offer in offers:
        smallest.append(offer.make(find_step(offer.layers)).count(offer.sizes) + offer.fixed)
        ranks = fill_budget(offer.layers, offer.sizes, budget - offer.fixed, offer.make)
        found = offer.at(ranks) if ranks else None
        best = max(filter(None, (best, found)), key=lambda one: one.trainable or 0, default=None)
        if best and (best.trainable or 0) >= TIGHT * budget:
            break
    if best is None:
        message = f"budget={given!r} is too small for {reference}: its smallest adapter trains "
        message += f"{min(smallest):,} parameters."
        raise InvalidRequest(message, field="budget", value=str(given), smallest=min(smallest))
    return best, f"budget of {budget:,}: preset {best.preset!r} at rank {best.rank} trains {best.trainable:,}"


def find_step(layers: Sequence[Layer]) -> int:
    """Return the smallest rank that fits all layers: the groups of each convolution must divide it."""
    return lcm(*(layer.groups for layer in layers))


def _add_step(ranks: Ranks, layers: Sequence[Layer], sizes: Mapping[str, int], budget: int, step: int) -> Ranks:
    """Return ranks with one step more for the slots that still fit, the largest first, and then for single layers."""
    slots: defaultdict[str, list[str]] = defaultdict(list)
    for layer in layers:
        if layer.kind == "multihead_attention":  # two adapters, which PEFT gives one rank and a pattern of paths two
            continue
        slots[pattern_of(layer.path)].append(layer.path)
    left, others, raised = budget - ranks.count(sizes), dict(ranks.others), dict[str, None]()

    def add(name: str, paths: Sequence[str]) -> None:
        nonlocal left
        size = step * sum(sizes[path] for path in paths)
        if size <= left:
            left -= size
            others.update({path: others.get(path, ranks.rank) + step for path in paths})
            raised[name] = None

    for pattern, paths in sorted(slots.items(), key=lambda slot: -sum(sizes[path] for path in slot[1])):
        add(pattern, paths)
    for path in (path for pattern, paths in slots.items() if pattern not in raised for path in paths):
        if budget - left < TIGHT * budget:
            add(path, [path])
    reason = f"at a rank higher by {step}, to use the budget: {list_some(raised)}"
    return Ranks(ranks.rank, others, (*ranks.reasons, *([reason] if raised else ())))
