"""Headers of safetensors files: those of its own library are read, and hostile ones end in one line."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from loradar.errors import WeightsUnreadable
from loradar.weights.safetensors import BITS, StoredTensor, parse_header, read_length

GOOD = {"a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def encode(header) -> bytes:
    """Return the JSON part of a header."""
    return header if isinstance(header, bytes) else json.dumps(header).encode()


def test_a_file_of_the_librarys_own_is_read():
    """Types, shapes and the order of the places."""
    tensors = {
        "b.weight": torch.zeros(3, 4, dtype=torch.bfloat16),
        "a.weight": torch.zeros(2, dtype=torch.float16),
        "c.scale": torch.zeros((), dtype=torch.int64),
        "d.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn),
        "e.empty": torch.zeros(0, 4),
        "f.empty": torch.zeros(3, 0),
    }
    content = save(tensors, metadata={"format": "pt"})
    length = read_length(content[:8], "model.safetensors")
    found = {each.name: each for each in parse_header(content[8 : 8 + length], "model.safetensors", len(content))}
    assert found == {
        "b.weight": StoredTensor("b.weight", "BF16", (3, 4)),
        "a.weight": StoredTensor("a.weight", "F16", (2,)),
        "c.scale": StoredTensor("c.scale", "I64", ()),
        "d.weight": StoredTensor("d.weight", "F8_E4M3", (4, 4)),
        "e.empty": StoredTensor("e.empty", "F32", (0, 4)),
        "f.empty": StoredTensor("f.empty", "F32", (3, 0)),
    }
    assert all(found[name].size == tensor.nbytes for name, tensor in tensors.items())


def entry(**changes):
    """Return a header whose one tensor has other facts."""
    return {"a.weight": {**GOOD["a.weight"], **changes}}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"not json", "is no JSON"),
        (b'{"a": "\xff\xfe"}', "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "no JSON object"),
        (b'{"__metadata__": {"a": "\\ud800"}}', "is no JSON"),
        (b'{"__metadata__": {"a": NaN}}', "is no JSON"),
        ({"__metadata__": {"a": 1}}, "__metadata__ that is not of texts"),
        ({"__metadata__": []}, "__metadata__ that is not of texts"),
        (entry(shape="\x00"), r"impossible shape '\\x00'"),
        (b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "a": {}}', "'a' twice"),
        (b'{"a": {"dtype": "F32", "dtype": "F16", "shape": [], "data_offsets": [0, 4]}}', "'dtype' twice"),
        ({"a.weight": 3}, "'a.weight' of F has no place"),
        (entry(data_offsets=[24, 0]), "has no place"),
        (entry(data_offsets=[-1, 24]), "has no place"),
        (entry(data_offsets=[0.0, 24.0]), "has no place"),
        (entry(data_offsets=[0, True]), "has no place"),
        (entry(dtype="F33"), "unknown type 'F33'"),
        (entry(dtype=None), "unknown type"),
        (entry(shape=[2, -3]), "impossible shape"),
        (entry(shape=[1 << 62, 1 << 62]), "impossible shape"),
        (entry(shape=[1] * 100), "impossible shape"),
        (entry(shape="23"), "impossible shape"),
        (entry(shape=[2, 4]), "takes 32 bytes by its shape, and 24 by its place"),
        ({**entry(), "b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, "'b' of F begins at 20"),
        ({**entry(), "b": {"dtype": "F32", "shape": [1], "data_offsets": [28, 32]}}, "'b' of F begins at 28"),
        ({"../../x": GOOD["a.weight"]}, "F: "),
        ({"a\u202eb": GOOD["a.weight"]}, r"U\+202E"),
        ({"": GOOD["a.weight"]}, "F: "),
    ],
)
def test_a_hostile_header_ends_in_one_line(header, words):
    """It names the file, and the tensor where there is one."""
    with pytest.raises(WeightsUnreadable, match=words) as caught:
        parse_header(encode(header), "F")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x10", "has 1 bytes"),
        ((1 << 63).to_bytes(8, "little"), "states a header of 9223372036854775808 bytes"),
        ((0).to_bytes(8, "little"), "states a header of 0 bytes"),
        (b"PK\x03\x04abcd", "Is it a safetensors file"),
    ],
)
def test_an_absurd_length_is_not_believed(start, words):
    """Before anything is read or allocated."""
    with pytest.raises(WeightsUnreadable, match=words):
        read_length(start, "F")


def test_a_file_cut_short_is_told():
    """By its size, of which the last tensor says where it ends."""
    with pytest.raises(WeightsUnreadable, match="Is the file complete"):
        parse_header(encode(GOOD), "F", 8 + len(encode(GOOD)) + 23)


def test_many_tensors_are_bounded(monkeypatch):
    """By their number, whatever their size."""
    monkeypatch.setattr("loradar.weights.safetensors.MOST_TENSORS", 1)
    with pytest.raises(WeightsUnreadable, match="lists 2 tensors; up to 1"):
        parse_header(encode({**GOOD, "b": {"dtype": "F32", "shape": [0], "data_offsets": [24, 24]}}), "F")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(sorted(BITS)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries({}, optional={"dtype": JSON, "shape": JSON, "data_offsets": JSON})


@given(st.dictionaries(st.text(max_size=12), ENTRY | JSON, max_size=3).map(json.dumps).map(str.encode) | st.binary())
def test_nothing_crashes(content):
    """Whatever the content: tensors, or one error."""
    try:
        found = parse_header(content, "F")
    except WeightsUnreadable:
        return
    assert all(tensor.dtype in BITS for tensor in found)
