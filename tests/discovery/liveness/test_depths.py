"""Verdicts by place: what two depths say about a third."""

import pytest

from loradar.discovery.liveness.depths import relate
from loradar.domain.places import find_places


def build(depth, dead):
    """Return whether each layer of a stack is dead, by its places."""
    places = find_places([f"blocks.{index}.value" for index in range(depth)])
    return {places[path]: index in dead for index, path in enumerate(places)}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([(2, {1}), (3, {2})], ".......D"),
        ([(2, {0}), (3, {0})], "D......."),
        ([(2, {1}), (3, {1})], ".D......"),
        ([(3, {2}), (4, {2})], "..D....."),
        ([(3, {1}), (4, {2})], "......D."),
        ([(3, {1, 2}), (4, {1, 2, 3})], ".DDDDDDD"),
        ([(2, {0}), (3, {0, 1})], "DDDDDDD."),
        ([(4, {1, 2}), (5, {1, 2, 3})], ".DDDDDD."),
        ([(4, {1, 3}), (6, {1, 3, 5})], ".D.D.D.D"),
        ([(2, {0, 1}), (3, {0, 1, 2})], "DDDDDDDD"),
    ],
)
def test_two_depths_decide_a_third(seen, expected):
    """The last, the first, the second, the inner blocks, every second one."""
    full = build(8, ())
    related = relate([build(*each) for each in seen])
    assert "".join(".D"[related.is_dead(places)] for places in full) == expected


@pytest.mark.parametrize("seen", [[(2, {1})], [(2, {1}), (3, {0})], [(3, {1}), (4, {0, 3})]])
def test_what_stays_open_is_unknown(seen):
    """The second of two blocks is also the last; depths that contradict each other decide nothing."""
    full = build(8, ())
    related = relate([build(*each) for each in seen])
    assert {related.is_dead(places) for places in full} == {None}
    assert related.blocks is None


def test_the_last_block_of_the_last_stage():
    """Two stacks, one inside the other."""

    def stages(*depths):
        return find_places([f"stages.{s}.blocks.{b}.norm" for s, depth in enumerate(depths) for b in range(depth)])

    seen = [
        {places: path.startswith(f"stages.1.blocks.{n - 1}") for path, places in stages(n, n).items()} for n in (2, 3)
    ]
    full = stages(6, 4)
    related = relate(seen)
    dead = [path for path, places in full.items() if related.is_dead(places)]
    assert dead == ["stages.1.blocks.3.norm"]


def test_the_blocks_are_named_for_every_depth():
    """Only if no other depth could contradict: one of five blocks may be the fifth or the last."""
    assert str(relate([build(2, {1}), build(3, {2})]).blocks) == "-1"
    assert str(relate([build(4, {1, 3}), build(6, {1, 3, 5})]).blocks) == "1::2"
    assert relate([build(5, {4})]).blocks is None
