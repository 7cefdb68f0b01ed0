"""Budgets of trained parameters: never exceeded, and used where any ranks do; and the layers of slots they count."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradar.domain.choosing.members import list_members, size_of, spread_evenly, write_members
from loradar.domain.choosing.ranks import Offer, Ranks, fill_budget, fit_budget, rank_experts
from loradar.domain.layers import Layer, Slot
from loradar.errors import InvalidRequest

places = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 4, 16]), st.booleans()),
    min_size=1,
)
sized = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from([1, 1, 1, 2, 4, 8]), st.integers(0, 2)), min_size=1, max_size=6
)


def list_reachable(costs, limit):
    """Return every number of parameters within a limit that some ranks train, computed apart from the code under test.

    ``costs`` are those of one step of each layer, which has at least one.
    """
    reachable = {sum(costs)} if sum(costs) <= limit else set()
    waiting = list(reachable)
    while waiting:
        count = waiting.pop()
        more = {count + cost for cost in costs if count + cost <= limit} - reachable
        reachable |= more
        waiting += more
    return reachable


@given(sized, st.integers(1, 2_000), st.integers(0, 50))
def test_a_budget_is_used_to_nine_tenths_where_any_ranks_do(layers, budget, fixed):
    """By layers of any size, of which convolutions take multiples of their groups, beside what is trained anyway."""
    made = [
        Layer(f"blocks.{n}.layer{slot}", "conv2d" if groups > 1 else "linear", "", (), groups=groups)
        for n, (_, groups, slot) in enumerate(layers)
    ]
    sizes = {layer.path: size for layer, (size, _, _) in zip(made, layers, strict=True)}
    offer = Offer(made, sizes, fixed, Ranks, lambda ranks: Chosen(ranks, sizes, fixed))
    reachable = {count + fixed for count in list_reachable([size * n for size, n, _ in layers], budget - fixed)}
    if not reachable:
        with pytest.raises(InvalidRequest, match=f"trains {sum(s * n for s, n, _ in layers) + fixed:,} parameters"):
            fit_budget("a model", budget, budget, [offer])
        return
    best, says = fit_budget("a model", budget, budget, [offer])
    assert best.trainable in reachable
    assert all(best.ranks.others.get(x.path, best.rank) % x.groups == 0 for x in made)
    if max(reachable) >= 0.9 * budget:
        assert best.trainable >= 0.9 * budget
    else:
        assert best.trainable == max(reachable)
        assert "no ranks of its layers come nearer" in says


@dataclass(frozen=True)
class Chosen:
    """A choice of layers at some ranks."""

    ranks: Ranks
    sizes: dict[str, int]
    fixed: int
    preset: str = "default"

    @property
    def rank(self):
        """The rank of most layers."""
        return self.ranks.rank

    @property
    def trainable(self):
        """The parameters trained at these ranks."""
        return self.ranks.count(self.sizes) + self.fixed


def test_a_budget_leaves_a_rank_that_was_given():
    """Others are raised."""
    layers = [Layer("blocks.0.expert", "linear", "", (), role="expert.up"), Layer("blocks.0.query", "linear", "", ())]
    sizes = {"blocks.0.expert": 10, "blocks.0.query": 10}
    ranks = fill_budget(layers, sizes, 59, lambda rank: rank_experts(layers, rank, 2, None))
    assert ranks.others == {"blocks.0.expert": 2}
    assert ranks.rank == 3


@given(places)
def test_members_of_a_slot_are_read_as_they_are_written(given):
    """In nested stacks of any shape; a layer that no adapter fits has no size."""
    layers = [
        Layer(
            f"stages.{a}.blocks.{b}.conv",
            "conv2d",
            "",
            (8, 2, width),
            in_features=2,
            out_features=16,
            groups=groups,
            misfit="no" if unfit else None,
        )
        for (a, b), (width, groups, unfit) in given.items()
    ]
    written = write_members(layers, {layers[0].path: 3})
    slot = Slot("vision", "conv.spatial", "conv2d", "stages.*.blocks.*.conv", len(layers), members=written)
    found = {layer.path: size for layer, size in list_members(slot)}
    assert found == {x.path: size_of(x, 3 if x is layers[0] else 0) for x in layers}


@pytest.mark.parametrize(
    ("pattern", "count", "per_rank", "text"),
    [
        ("layers.*.q", 4, 32, "0-3:8"),
        ("head", 1, 5, ":5"),
        ("layers.*.norm", 4, None, "0-3"),
        ("layers.*.q", 4, 33, None),
        ("stages.*.blocks.*.q", 4, 32, None),
    ],
)
def test_members_that_follow_from_a_slot_are_known(pattern, count, per_rank, text):
    """The catalog does not write them."""
    assert spread_evenly(Slot("main", "other", "linear", pattern, count, per_rank=per_rank)) == text
