"""Choose ranks: those of experts by the share of tokens that each sees, and those that fill a budget of parameters."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, lcm
from typing import Any, Generic, Protocol, TypeVar

from ...errors import InvalidRequest
from ..layers import Layer
from ..patterns import find_indices, name_targets, pattern_of
from ..presets import EXPERT
from ..targets import Formula
from ..vocabulary import RANK, list_some
from .query import MOST_RANK, ExpertRank

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
        InvalidRequest: If it cannot be read, or is a share of a model of unknown size or above 100%.
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
    if share and total is not None and found > total:
        message = f"budget={value!r} is more than the {total:,} parameters of the model: give less, such as '1%'."
        raise InvalidRequest(message, field="budget", value=str(value))
    return found


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of every layer of a choice.

    Attributes:
        rank: The rank of all layers but those below.
        others: Other ranks, by paths of layers.
        reasons: Why, in words.
        given: The layers whose rank was given, which no budget raises.
    """

    rank: int = RANK
    others: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()

    def count(self, sizes: Mapping[str, int]) -> int:
        """Return the number of parameters trained, given those each rank of a layer adds, by path."""
        return sum(size * self.others.get(path, self.rank) for path, size in sizes.items())

    def divisible(self, layers: Iterable[Layer]) -> "Ranks":
        """Return ranks that the groups of each convolution divide, higher ones where they do not."""
        own = {x.path: self.others.get(x.path, self.rank) for x in layers if x.groups > 1}
        needed = {x.path: ceil(own[x.path] / x.groups) * x.groups for x in layers if x.groups > 1}
        return replace(self, others={**self.others, **{path: n for path, n in needed.items() if n != own[path]}})

    def to_fields(self, sizes: Mapping[str, int], fixed: int, every: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a proposal or a mapping at these ranks.

        Args:
            sizes: The parameters that each rank of a layer adds, by path.
            fixed: The parameters trained at any rank.
            every: The paths of all modules and bare parameters.
        """
        if not (self.others or self.reasons):
            return {"rank": self.rank}
        patterns = self.name(every)
        apart = sum(sizes[path] * rank for path, rank in self.others.items())
        per_rank = sum(size for path, size in sizes.items() if path not in self.others)
        return {
            "rank": self.rank,
            "rank_pattern": patterns or None,
            "alpha_pattern": scale_alphas(patterns, self.rank) or None,
            "formula": Formula(per_rank, apart + fixed),
        }

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
    if not experts and isinstance(expert_rank, int):
        return Ranks(rank, {}, (f"expert_rank={expert_rank} has no effect: none of these layers is a routed expert",))
    if not experts or expert_rank in ("shared", None):
        return Ranks(rank)
    if isinstance(expert_rank, int):
        own, why = expert_rank, "as given"
    elif active is None:
        return Ranks(rank, {}, (f"experts at rank {rank}: the number that run for a token is not known",))
    else:
        own, why = max(1, rank // active), f"{rank} over the {active} that run for a token"
    given = frozenset(experts if isinstance(expert_rank, int) else ())
    return Ranks(rank, dict.fromkeys(experts, own) if own != rank else {}, (f"experts at rank {own}: {why}",), given)


def fill_budget(
    layers: Sequence[Layer],
    sizes: Mapping[str, int],
    budget: int,
    make: Callable[[int], Ranks],
    *,
    is_thorough: bool = False,
) -> Ranks | None:
    """Return the largest ranks whose parameters are within a budget; ``None`` if the smallest are not.

    Where one rank for all is coarse, some slots and layers get a step more than the others.

    Args:
        layers: The layers of the choice.
        sizes: The parameters that each rank of a layer adds, by path.
        budget: The parameters to train at most.
        make: Make the ranks of all layers from one.
        is_thorough: Give single layers as many steps as it takes to use the budget.
    """

    def fits(ranks: Ranks) -> bool:
        return ranks.count(sizes) <= budget

    def divisible(rank: int) -> Ranks:
        return make(rank).divisible(layers)

    if not fits(divisible(1)):
        return None
    if not layers:  # modules trained in full alone
        return make(RANK)
    step = lcm(*(layer.groups for layer in layers))
    ranks = make(step * _find_largest(lambda n: fits(make(step * n)))) if fits(make(step)) else divisible(1)
    if ranks.count(sizes) >= TIGHT * budget:
        return ranks
    filling = _Filling(layers, sizes, budget, divisible(_find_largest(lambda n: fits(divisible(n)))))
    filling.add_steps()
    if is_thorough and not filling.is_used:
        filling.add_more()
    if is_thorough and not filling.is_used:
        return filling.search(divisible)
    return filling.ranks


def _find_largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number that fits, as all smaller ones do; 1 fits."""
    low, high = 1, 2
    while high < MOST_RANK and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class _Filling:
    """Ranks of single layers that use up a budget.

    Layers whose rank was given keep it, and so do those of ``nn.MultiheadAttention``: two adapters, which PEFT gives
    one rank and a pattern of paths two.
    """

    def __init__(self, layers: Sequence[Layer], sizes: Mapping[str, int], budget: int, base: Ranks) -> None:
        self._base, self._sizes, self._budget = base, sizes, budget
        self._others, self._left = dict(base.others), budget - base.count(sizes)
        self._raised = dict[str, None]()
        free = [x for x in layers if x.kind != "multihead_attention" and x.path not in base.given and sizes[x.path]]
        self._steps = {x.path: x.groups for x in sorted(free, key=lambda x: find_indices(x.path))}
        slots: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._steps:
            slots[pattern_of(path)].append(path)
        self._slots = dict(sorted(slots.items(), key=lambda slot: (-self._cost(slot[1]), slot[0])))

    @property
    def is_used(self) -> bool:
        """Whether the ranks use the share of the budget that they should."""
        return self._budget - self._left >= TIGHT * self._budget

    @property
    def ranks(self) -> Ranks:
        """The ranks, with the layers at higher ones as a reason."""
        reasons = [f"at higher ranks, to use the budget: {list_some(self._raised)}"] if self._raised else []
        return replace(self._base, others=self._others, reasons=(*self._base.reasons, *reasons))

    def add_steps(self) -> None:
        """Add one step to each slot that still fits, the largest first, and then to single layers of the others."""
        for pattern, paths in self._slots.items():
            self._add(pattern, paths)
        for path in [path for pattern, paths in self._slots.items() if pattern not in self._raised for path in paths]:
            if not self.is_used:
                self._add(path, [path])

    def add_more(self) -> None:
        """Add steps to single layers while they fit, those with the largest first."""
        for path in sorted(self._steps, key=lambda path: -self._cost([path])):
            while not self.is_used and self._add(path, [path]):
                pass

    def search(self, make: Callable[[int], Ranks]) -> Ranks:
        """Return the ranks that use most of the budget among all there are, which are few: each step is a tenth of it.

        ``make`` makes the ranks of all layers from one.
        """
        best = self.ranks
        for rank in range(self._base.rank, 0, -1):
            base = make(rank)
            start = base.count(self._sizes)
            reached = self._list_reached(start)
            if max(reached) > best.count(self._sizes):
                self._base, self._others, self._raised = base, dict(base.others), {}
                self._left = self._budget - start
                for path in reached[max(reached)]:
                    self._add(path, [path])
                best = self.ranks
        return best

    def _list_reached(self, start: int) -> dict[int, tuple[str, ...]]:
        """Return the layers to raise by the parameters that are then trained, from those at the start."""
        reached: dict[int, tuple[str, ...]] = {start: ()}
        waiting = [start]
        while waiting:
            count = waiting.pop()
            for path in self._steps:
                more = count + self._cost([path])
                if more <= self._budget and more not in reached:
                    reached[more] = (*reached[count], path)
                    waiting.append(more)
        return reached

    def _cost(self, paths: Iterable[str]) -> int:
        return sum(self._steps[path] * self._sizes[path] for path in paths)

    def _add(self, name: str, paths: Sequence[str]) -> bool:
        """Add one step to each of some layers if that fits, and return whether it does."""
        cost = self._cost(paths)
        if cost > self._left:
            return False
        self._left -= cost
        self._others.update({path: self._others.get(path, self._base.rank) + self._steps[path] for path in paths})
        self._raised[name] = None
        return True


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
    for offer, is_thorough in _list_twice(offers):
        smallest.append(offer.make(1).divisible(offer.layers).count(offer.sizes) + offer.fixed)
        ranks = fill_budget(offer.layers, offer.sizes, budget - offer.fixed, offer.make, is_thorough=is_thorough)
        found = offer.at(ranks) if ranks else None
        best = max(filter(None, (best, found)), key=lambda one: one.trainable or 0, default=None)
        if best and (best.trainable or 0) >= TIGHT * budget:
            break
    if best is None:
        message = f"budget={given!r} is too small for {reference}: its smallest adapter trains "
        message += f"{min(smallest):,} parameters."
        raise InvalidRequest(message, field="budget", value=str(given), smallest=min(smallest))
    says = f"budget of {budget:,}: preset {best.preset!r} at rank {best.rank} trains {best.trainable:,}"
    used = (best.trainable or 0) / budget
    return best, says if used >= TIGHT else f"{says}, {used:.0%}: no ranks of its layers come nearer"


def _list_twice(offers: Iterable[Offer[RankedT]]) -> Iterator[tuple[Offer[RankedT], bool]]:
    """Yield each offer, and then each again to be filled thoroughly."""
    seen = []
    for offer in offers:
        seen.append(offer)
        yield offer, False
    for offer in seen:
        yield offer, True
