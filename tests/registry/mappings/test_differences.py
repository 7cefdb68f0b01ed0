"""Differences in words: each sort once, from the side of the other architecture."""

from dataclasses import replace

import pytest

from loradar.domain.layers import Slot
from loradar.registry.mappings.similar import list_differences


def slot(role, leaf, parent="attn", kind="linear"):
    """Return a slot of a block."""
    return Slot("language", role, kind, f"model.layers.*.{parent}.{leaf}", 2)


PLAIN = (
    slot("attention.query", "q"),
    slot("attention.key", "k"),
    slot("attention.value", "v"),
    slot("attention.output", "o"),
    slot("norm", "ln", "", "norm"),
    slot("mlp.up", "up", "mlp"),
    slot("mlp.down", "down", "mlp"),
)
EXPERTS = (
    slot("expert.up", "up", "experts"),
    slot("expert.down", "down", "experts"),
    slot("moe.router", "gate", "mlp"),
)
VISION = tuple(replace(one, tower="vision") for one in PLAIN)
KV = (PLAIN[0], slot("attention.kv", "kv"), *PLAIN[3:])


@pytest.mark.parametrize(
    ("asked", "other", "said"),
    [
        (PLAIN, PLAIN, ()),
        (PLAIN, KV, ("fuses key and value into one projection where it has two",)),
        (KV, PLAIN, ("has two projections for key and value where it fuses them into one",)),
        (PLAIN, (*PLAIN, *EXPERTS), ("adds experts: 3 slots",)),
        ((*PLAIN, *EXPERTS), PLAIN, ("has no experts where it has 3 slots",)),
        (PLAIN, (*PLAIN, *VISION), ("adds a tower, vision: 7 slots",)),
        ((*PLAIN, *VISION), PLAIN, ("has no vision tower where it has 7 slots",)),
        (PLAIN, VISION, ("has vision where it has language",)),
        (PLAIN, (*PLAIN, slot("mlp.gate", "gate", "mlp")), ("adds mlp.gate: 1 slot",)),
        ((*PLAIN, slot("mlp.gate", "gate", "mlp")), PLAIN, ("has no mlp.gate where it has 1 slot",)),
        (PLAIN, (*PLAIN, slot("mlp.up", "more", "mlp")), ("has 2 slots of mlp.up where it has 1",)),
        (PLAIN, (*PLAIN, slot("norm", "q_norm", kind="norm")), ("has norms in its attention: q_norm",)),
        (PLAIN, (*PLAIN, slot("norm", "post", "", "norm")), ("has 2 slots of norm where it has 1",)),
        (PLAIN, (*PLAIN, slot("head", "lm_head")), ()),
        (
            PLAIN,
            (*PLAIN[:5], replace(PLAIN[5], kind="conv2d"), PLAIN[6]),
            ("has mlp.up as conv2d where it has linear",),
        ),
        (
            (replace(PLAIN[0], layout="halves"),),
            (replace(PLAIN[0], layout="interleaved"),),
            ("has attention.query as interleaved where it has halves",),
        ),
        (PLAIN[:1], (slot("attention.query", "wq"),), ("names attn.wq where it says attn.q",)),
    ],
)
def test_each_difference_has_its_sentence(asked, other, said):
    """And nothing is said twice."""
    assert list_differences(asked, other, "it") == said


def test_many_of_one_sort_are_counted():
    """A list of all names would hide the rest."""
    renamed = tuple(replace(one, pattern=f"{one.pattern}_") for one in PLAIN)
    said = list_differences(PLAIN, renamed, "it")
    assert len(said) == 5
    assert said[-1] == "and 2 other names differ"


def test_convolutions_are_not_paired_where_there_are_more_of_some():
    """Which stands for which, nobody can tell then."""
    asked = tuple(slot("conv.spatial", f"a{n}", kind="conv2d") for n in range(2))
    other = (slot("conv.pointwise", "p", kind="conv2d"), *(replace(one, pattern="x.*.b") for one in asked[:1]))
    assert not any("names" in sentence for sentence in list_differences(asked, other, "it"))
