"""Places of blocks, counted from either end of their stack."""

import pytest

from loradar.domain.places import BlockPattern, BlockRange, Place, find_places


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


def stack(name, depth, leaf="value"):
    """Return the paths of one layer in each block of a stack."""
    return [f"{name}.{index}.{leaf}" for index in range(depth)]


@pytest.mark.parametrize(
    ("text", "scanned"),
    [
        ("layer.[-1 of 3].value", ["layer.2.value"]),
        ("layer.[:-1 of 3].net.2", ["layer.0.net.2", "layer.1.net.2"]),
        ("stages.[-1 of 2].blocks.[0 of 4].norm", ["stages.1.blocks.0.norm"]),
        ("stages.[* of 2].blocks.[1::2 of 4].norm", [f"stages.{s}.blocks.{b}.norm" for s in (0, 1) for b in (1, 3)]),
    ],
)
def test_a_pattern_names_layers_of_the_scanned_model(text, scanned):
    """Text and pattern are the same in two forms."""
    assert str(BlockPattern.parse(text)) == text
    assert [*BlockPattern.parse(text).list_scanned()] == scanned


@pytest.mark.parametrize("depth", [1, 2, 5, 40])
def test_a_pattern_finds_the_last_block_of_a_model_of_any_depth(depth):
    """Under any prefix, and not in a stack of another name."""
    places = find_places([*stack("model.encoder.layer", depth), *stack("decoder.layers", depth + 1)])
    found = BlockPattern.parse("layer.[-1 of 12].value").list_in(places)
    assert found == (f"model.encoder.layer.{depth - 1}.value",)


def test_the_pattern_found_is_the_shortest_that_names_no_other_layer():
    """A stack of the same name needs its parent."""
    last = BlockRange.parse("-1")
    alone = find_places([*stack("model.encoder.layer", 3), *stack("model.encoder.layer", 3, "query")])
    assert str(BlockPattern.find(["model.encoder.layer.2.value"], alone, last)) == "layer.[-1 of 3].value"
    two = find_places([*stack("model.encoder.layer", 3), *stack("model.decoder.layer", 3)])
    assert str(BlockPattern.find(["model.encoder.layer.2.value"], two, last)) == "encoder.layer.[-1 of 3].value"


@pytest.mark.parametrize(
    ("dead", "others", "blocks"),
    [
        (["layer.4.value"], ["layer.0.value", "layer.2.value"], "-1"),  # the second index of three: nothing at 1 and 3
        (["layer.1.value"], stack("layer", 3), "not 0"),
        (["a.0.b.1.v", "a.1.b.2.v"], ["a.0.b.0.v", "a.1.b.0.v", "a.1.b.1.v"], "*/-1"),  # inner stacks of two depths
    ],
)
def test_layers_that_no_pattern_names_by_their_place(dead, others, blocks):
    """They are named by their indices, as they stand in the scanned model."""
    assert BlockPattern.find(dead, find_places([*dead, *others]), BlockRange.parse(blocks)) is None
