"""Specs and the layers of slots: an index in a target, or in an exclusion, decides for each layer."""

import pytest

from loradar.domain.choosing.slot_hits import count_hits
from loradar.domain.layers import Slot
from loradar.domain.targets import TargetSpec

DOWN = Slot("language", "mlp.down", "linear", "h.*.net.*", 4, members="0-3.2:64")
VALUE = Slot("language", "attention.value", "linear", "h.*.v", 4, members="0-3:64")
UNLISTED = Slot("language", "mlp.up", "linear", "h.*.net.*", 4)


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        (TargetSpec(target_modules=("net.2", "v")), (4, 4, 0)),
        (TargetSpec(target_modules=("v",), exclude_modules=("h.3.v",)), (0, 3, 0)),
        (TargetSpec(target_modules=r"h\.[1-9]\d*\.v"), (0, 3, 0)),
        (TargetSpec(target_modules=("h.0.v", "net.0")), (0, 1, 4)),
        (TargetSpec(target_modules=("v",), exclude_blocks=("h.[-1 of 4].v",)), (0, 4, 0)),
    ],
)
def test_layers_of_slots_are_matched_one_by_one(spec, counts):
    """A slot without its layers on record is matched whole or not at all, by its first layer."""
    assert count_hits(spec, (DOWN, VALUE, UNLISTED)) == counts
