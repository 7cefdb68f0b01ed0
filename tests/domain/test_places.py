"""Places of blocks, counted from either end of their stack."""

import pytest

from loradar.domain.places import BlockRange, Place, find_places


def chosen(text, depth):
    """Return the indices of a stack's blocks that are in a range."""
    return [index for index in range(depth) if (Place(index, depth - 1 - index),) in BlockRange.parse(text)]


@pytest.mark.parametrize("depth", [1, 2, 3, 12])
@pytest.mark.parametrize("text", ["0", "-1", "-2", "1:", ":-1", "1::2", "1:-1", "*"])
def test_a_range_is_that_of_python(text, depth):
    """An index beyond the stack is of no block."""
    indices = [*range(depth)]
    if text == "*":
        expected = indices
    elif ":" in text:
        expected = indices[slice(*(int(part) if part else None for part in text.split(":")))]
    else:
        expected = [index for index in indices if index in {int(text), int(text) + depth}]
    assert chosen(text, depth) == expected


@pytest.mark.parametrize("depth", [1, 2, 3, 12])
@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("0", "1:"),
        ("1:", "0"),
        ("-1", ":-1"),
        (":-1", "-1"),
        ("2:", ":2"),
        (":-3", "-3:"),
        ("1::2", "not 1::2"),
        ("3", "not 3"),
    ],
)
def test_the_complement_holds_every_other_block(text, other, depth):
    """At every depth; it is a range of its own where there is one."""
    assert str(BlockRange.parse(text).complement()) == other
    assert sorted([*chosen(text, depth), *chosen(other, depth)]) == [*range(depth)]


def test_stacks_inside_stacks():
    """The first block of the last stage."""
    places = find_places(
        [f"stages.{stage}.{block}.norm" for stage, blocks in enumerate((2, 3)) for block in range(blocks)]
    )
    blocks = BlockRange.parse("-1/0")
    assert [path for path, place in places.items() if place in blocks] == ["stages.1.0.norm"]
    assert [path for path, place in places.items() if place in blocks.complement()] == [
        path for path in places if path != "stages.1.0.norm"
    ]


def test_a_place_counts_the_blocks_that_are_there():
    """A block without layers in the list does not shift the others, and other stacks do not count."""
    places = find_places(["a.0.x", "a.2.x", "a.2.y.1", "b.0.x"])
    assert places["a.2.x"] == (Place(1, 0),)
    assert places["a.2.y.1"] == (Place(1, 0), Place(0, 0))
    assert places["b.0.x"] == (Place(0, 0),)
