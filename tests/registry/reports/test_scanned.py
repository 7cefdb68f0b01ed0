"""A scan as a registry of its own, packed into bytes."""

from contextlib import closing

import pytest
from records_zoo import make_scan

from loradar.errors import InvalidRequest
from loradar.registry.db import HEAD
from loradar.registry.reports.scanned import pack_scan, unpack_scan


def test_a_packed_scan_answers_as_a_registered_one():
    """Lookups and details are those of a registry, at the schema of this version."""
    scanned = unpack_scan(pack_scan(make_scan()))
    with closing(scanned.registry) as registry:
        assert registry.lookup("olmo2").spec.target_modules == ("q_proj", "v_proj")
        assert (scanned.detail.architecture.name, registry.info().revision) == ("olmo2", HEAD)
        assert scanned.layers.splitlines()[0] == "model.layers.0.self_attn.q_proj 4x4"


@pytest.mark.parametrize("packed", [b"", b"\x02\0\0\0\0\0\0\0{}", b"x" * 100])
def test_other_bytes_are_no_scan(packed):
    """They are named as what they are."""
    with pytest.raises(InvalidRequest, match="no packed scan"):
        unpack_scan(packed)
