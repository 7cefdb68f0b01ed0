"""Which blocks are reached, by kind of block."""

from dataclasses import replace

from records_zoo import layer

from loradar.domain.layers import Blocks, Coverage


def hybrid():
    """Return the layers of three blocks with attention and one with a mixer, each with a norm."""
    layers = []
    for n in range(4):
        names, owner = (("in_proj",), "Mixer") if n == 1 else (("q_proj", "o_proj"), "Attention")
        inside = [replace(layer(f"layers.{n}.{name}"), owner=owner) for name in names]
        inside.append(layer(f"layers.{n}.norm", "norm", "norm"))
        layers += [replace(one, block=f"layers.{n}") for one in inside]
    return layers


def test_kinds_of_blocks_are_told_apart_by_the_classes_they_hold():
    """A hybrid's blocks stand in one list and are of two kinds."""
    layers = hybrid()
    hit = [one for one in layers if one.name == "q_proj"]
    assert Blocks(layers).cover(hit) == (
        Coverage("layers.* (Attention)", 3, 3, "language"),
        Coverage("layers.* (Mixer)", 0, 1, "language"),
    )


def test_a_layer_outside_the_blocks_covers_none():
    """And a table of positions in the first block alone makes it no other kind."""
    layers = [*hybrid()[:2], replace(layer("layers.0.bias", "embedding"), block="layers.0"), layer("head", depth=0)]
    assert Blocks(layers).cover([layers[-1]]) == (Coverage("layers.*", 0, 1, "language"),)


def test_a_share_counts_shared_weights_once():
    """Two layers of one weight are one."""
    layers = hybrid()
    tied = replace(layers[1], tied_to=layers[0].path)
    blocks = Blocks([layers[0], tied, layers[3]])
    assert blocks.share([layers[0], tied]) == 0.5
    assert blocks.share([layer("head", depth=0)]) == 0
