"""Parts of files that were sent: told apart by content, read within bounds, rejected in one line."""

import gzip
import json
import pickle

import pytest
import torch
from safetensors.torch import save

from loradar.errors import InvalidReference, LoradarError, WeightsUnreadable
from loradar.weights.index import parse_index
from loradar.weights.sent_files import MOST_CONFIG_BYTES, MOST_FILES, find_kind, read_sent

CONFIG = {"model_type": "llama", "hidden_size": 64}
TENSORS = {"model.a.weight": torch.zeros(2, 3), "model.b.weight": torch.zeros(4)}


def header_of(tensors=TENSORS, behind=0):
    """Return the header of a safetensors file, and so many bytes behind it."""
    content = save(tensors)
    return content[: 8 + int.from_bytes(content[:8], "little") + behind]


def encode(value):
    """Return JSON."""
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (encode(CONFIG), "config"),
        (b"\xef\xbb\xbf" + encode(CONFIG), "config"),
        (header_of(), "header"),
        (header_of()[8:], "header"),
        (encode({"metadata": {"total_size": 9}, "weight_map": {"a": "b"}}), "index"),
        (b"GGUF\x03\0\0\0", "gguf"),
    ],
)
def test_a_file_is_told_by_its_content(content, kind):
    """Whatever it is called."""
    assert find_kind(content, "untitled") == kind


@pytest.mark.parametrize("behind", [0, 5, 40])
def test_a_header_is_enough(behind):
    """With as much of the data behind it as came along."""
    sent = read_sent({"x.bin": header_of(behind=behind)})
    assert {tensor.name: tensor.shape for tensor in sent.tensors} == {"model.a.weight": (2, 3), "model.b.weight": (4,)}
    assert (sent.headers, sent.config) == (1, {})


def test_the_json_of_a_header_is_a_header():
    """As pages of a hub show it."""
    assert read_sent({"pasted": header_of()[8:]}).tensors == read_sent({"whole": header_of()}).tensors


def test_files_of_one_model_belong_together():
    """A configuration, an index and one shard; what the other shard holds is taken from the same place."""
    index = {"weight_map": {f"model.{n}.weight": f"m-{n}.safetensors" for n in range(2)}}
    shard = header_of({"model.0.weight": torch.zeros(2, 2)})
    sent = read_sent({"c": encode(CONFIG), "i": encode(index), "m-0.safetensors": shard})
    assert sent.config == CONFIG
    assert {tensor.name: tensor.shape for tensor in sent.tensors} == dict.fromkeys(index["weight_map"], (2, 2))
    assert "1 of 2 tensors" in sent.assumed[0]


def test_an_index_alone_has_names():
    """Without a header there is no shape."""
    sent = read_sent({"i": encode({"weight_map": {"a.weight": "m.safetensors"}})})
    assert (sent.tensors, sent.headers, list(sent.index.files)) == ((), 0, ["a.weight"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b'{"model_type": ', "no JSON: Expecting value at line 1"),
        (b"[1, 2]", "JSON list, not an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "cannot be read"),
        (b"\xff\xfe\x00x", "begins with ff fe 00 78"),
        (gzip.compress(encode(CONFIG), mtime=0), "gzip"),
        (b"PK\x03\x04" + b"\0" * 20, "zip archive"),
        (pickle.dumps(CONFIG), "is a pickle"),
        (header_of()[:-4], "ends inside its header"),
        ((2).to_bytes(8, "little") + b"{x", "no JSON"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "tensors"),
        (encode({"pad": "x" * MOST_CONFIG_BYTES}), "no configuration"),
    ],
)
def test_what_cannot_be_read_is_named(content, said):
    """In one line, with the name of the file."""
    with pytest.raises(WeightsUnreadable) as caught:
        read_sent({"mine.x": content})
    assert said in caught.value.message
    assert "mine.x" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"peft_type": "LORA", "base_model_name_or_path": "gpt2"}, "an adapter ('LORA') of 'gpt2'"),
        ({"_class_name": "StableDiffusionPipeline", "unet": []}, "parts of a pipeline"),
    ],
)
def test_what_is_no_model_is_named(content, said):
    """With the way to the model."""
    with pytest.raises(InvalidReference, match=r"Send the config\.json") as caught:
        read_sent({"x.json": encode(content)})
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "0 files"),
        ({str(n): encode(CONFIG) for n in range(MOST_FILES + 1)}, f"{MOST_FILES + 1} files"),
        ({"a": encode(CONFIG), "b": encode(CONFIG)}, "'a' and 'b'"),
        ({"a": header_of(), "b": header_of()}, "the tensor 'model.a.weight'"),
        (
            {"a": header_of(), "b": encode({"weight_map": {"other.weight": "x.safetensors"}})},
            "'x.safetensors', which has",
        ),
        ({"a": header_of(), "b": encode({"weight_map": {"other.weight": "a"}})}, "a lacks the tensor 'other.weight'"),
    ],
)
def test_what_does_not_belong_together_is_named(files, said):
    """Nothing of it is left out silently."""
    with pytest.raises(LoradarError) as caught:
        read_sent(files)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "is no JSON"),
        (b'{"weight_map": {"a": "\xff"}}', "is no JSON"),
        (b'{"weight_map": {"a": "m.safetensors", "a": "n.safetensors"}}', "'a' twice"),
        (b'{"weight_map": {"a": "m.safetensors"}, "weight_map": {"b": "n.safetensors"}}', "'weight_map' twice"),
        (b'{"weight_map": {"a": "../m.safetensors"}}', "not beside it"),
        (b'{"weight_map": {"../a": "m.safetensors"}}', "I: "),
        (b'{"weight_map": []}', "no weight_map"),
    ],
)
def test_a_hostile_index_ends_in_one_line(content, said):
    """As read from a folder or a hub."""
    with pytest.raises(WeightsUnreadable, match=said) as caught:
        parse_index(content, "I")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
