"""GGUF: headers as the package ``gguf`` reads them, models, and files that are hostile."""

import struct
from contextlib import suppress

import pytest
import torch
from gguf import GGUFReader
from gguf_files import write_adapter, write_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from loradar import doctor
from loradar.discovery import scan
from loradar.errors import InvalidConfig, InvalidReference, LoradarError, WeightsUnreadable
from loradar.weights import read_gguf

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2}
SIZES |= {"num_hidden_layers": 2, "vocab_size": 64}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}


def llama(**changes):
    """A language model."""
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The model of llama in GGUF."""
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    write_model(path, "llama", llama())
    return path


def read(content, where="a.gguf"):
    """Return the header in bytes."""
    return read_gguf(lambda start, length: content[start : start + length], where)


def test_the_header_is_what_the_package_reads(file):
    """Names, sides and fields; a part of 256 KiB is enough."""
    own, theirs = read(file.read_bytes()), GGUFReader(file)
    assert {tensor.name: tensor.shape for tensor in own.tensors} == {
        tensor.name: tuple(map(int, reversed(tensor.shape))) for tensor in theirs.tensors
    }
    assert own.metadata["llama.block_count"] == 2
    assert own.lengths == {"tokenizer.ggml.tokens": 300, "tokenizer.ggml.scores": 300}


@pytest.mark.usefixtures("read_settings")
def test_a_model_fits_the_architecture_it_states(file, tmp_path):
    """With the names of transformers; tied embeddings are not missing."""
    found = scan(f"file:{file}")
    assert (found.architecture.name, found.stored.verdict) == ("llama", "fits")
    assert next(x for x in found.proposals if (x.peft_type, x.preset) == ("LORA", "default")).matched == 4
    write_model(tmp_path / "moe.gguf", "qwen3moe", Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **EXPERTS)))
    found = scan(f"file:{tmp_path / 'moe.gguf'}")
    assert (found.architecture.name, found.stored.verdict) == ("qwen3_moe", "fits with renames")
    assert "gate_proj + model.layers.*.mlp.experts.up_proj" in found.stored.renames[0]
    write_model(tmp_path / "text.gguf", "gemma3", Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, head_dim=16)))
    found = scan(f"file:{tmp_path / 'text.gguf'}")  # its vision tower is in a file of its own
    assert (found.architecture.name, found.stored.verdict) == ("gemma3_text", "fits")


@pytest.mark.usefixtures("read_settings")
def test_an_adapter_of_llama_cpp_is_examined(file, tmp_path):
    """Where it lands, by the names of llama.cpp; its base may be in GGUF or a folder."""
    pair = torch.ones(4, 32), torch.ones(32, 4)
    path = tmp_path / "lora.gguf"
    write_adapter(path, "llama", {f"blk.{block}.attn_q": pair for block in range(2)})
    llama().config.save_pretrained(tmp_path / "base")
    for base in (tmp_path / "base", str(file)):
        found = doctor(path, base)
        assert (found.format, found.layers, found.landed, found.findings) == ("gguf", 2, 2, ()), base
    with pytest.raises(InvalidConfig, match="mend the adapter that it was made from"):
        doctor(path, tmp_path / "base", fix=tmp_path / "mended")
    with pytest.raises(InvalidReference, match=r"is an adapter of llama\.cpp"):
        scan(f"file:{path}")
    wrong = {"blk.9.attn_q": pair, "blk.0.attn_v": (torch.ones(4, 64), torch.ones(32, 4))}
    write_adapter(path, "llama", wrong | {"blk.0.attn_k": (torch.ones(4, 32), torch.ones(32, 8))}, alpha=0.0)
    found = doctor(path, tmp_path / "base")
    assert {x.code for x in found.findings} == {"unknown-layers", "shapes", "rank", "alpha"}


def header(tensors=0, fields=0, version=3, rest=b""):
    """Return the bytes of a header."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + rest


def text(value):
    """Return a string as the format has it."""
    return struct.pack("<Q", len(value)) + value


TENSOR = text(b"x") + struct.pack("<IQIQ", 1, 4, 0, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends inside"),
        (b"GGML" + bytes(40), "no GGUF file"),
        (header(version=1 << 24), "of version"),
        (header(tensors=1 << 63), "tensors; up to"),
        (header(fields=1 << 63), "fields; up to"),
        (header(fields=1), "ends inside"),
        (header(fields=1, rest=struct.pack("<Q", 1 << 62)), "bytes of a string; up to"),
        (header(fields=1, rest=text(b"a") + struct.pack("<IIQ", 9, 0, 1 << 60)), "items of a list; up to"),
        (header(fields=1, rest=text(b"a") + struct.pack("<IIQ", 9, 9, 1)), "unknown type 9"),
        (header(fields=1, rest=text(b"a") + struct.pack("<I", 77)), "unknown type 77"),
        (header(fields=2, rest=(text(b"a") + struct.pack("<II", 4, 1)) * 2), "twice"),
        (header(tensors=1, rest=text(b"../../x") + struct.pack("<IQIQ", 1, 4, 0, 0)), "empty segment"),
        (header(tensors=1, rest=text(b"x") + struct.pack("<IQIQ", 1, 1 << 62, 0, 0)), "impossible shape"),
        (header(tensors=1, rest=text(b"x") + struct.pack("<IIQ", 1 << 31, 0, 0)), "impossible shape"),
        (header(tensors=1, rest=text(b"x") + struct.pack("<IQIQ", 1, 4, 99, 0)), "unknown type 99"),
        (header(tensors=1, rest=text(b"\xff") + struct.pack("<IQIQ", 1, 4, 0, 0)), "printable ASCII"),
        (header(tensors=2, rest=(text(b"x") + struct.pack("<IQIQ", 1, 4, 0, 0)) * 2), "twice"),
        (
            header(tensors=2, rest=b"".join(text(x) + struct.pack("<IQIQ", 1, 4, 0, 8) for x in (b"x", b"y"))),
            "at 8, where",
        ),
        (
            header(1, 1, 3, text(b"general.alignment") + struct.pack("<II", 4, 0) + TENSOR),
            "impossible general.alignment",
        ),
    ],
)
def test_hostile_headers_are_one_clear_line(tmp_path, content, says):
    """Bounded, whatever the counts are; in a scan and in the doctor."""
    with pytest.raises(WeightsUnreadable, match=says) as raised:
        read(content)
    assert "\n" not in str(raised.value)
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(LoradarError):
        scan(f"file:{path}")


@pytest.mark.parametrize("place", [0, 1 << 60])
def test_a_file_that_ends_before_its_last_tensor_is_told(tmp_path, place):
    """As one that was downloaded in part, or whose places are made up."""
    path = tmp_path / "cut.gguf"
    tensor = text(b"x.lora_a") + struct.pack("<IQQIQ", 2, 4, 4, 0, place)
    path.write_bytes(header(1, 0, 3, tensor) + bytes(24 + 63))
    for read_file in (doctor, lambda path: scan(f"file:{path}")):
        with pytest.raises(WeightsUnreadable, match="Is the file complete"):
            read_file(path)


def test_cut_and_changed_headers_never_crash(file):
    """Each prefix, and each byte changed, is read or rejected."""
    content = file.read_bytes()[:4096]
    for end in range(0, len(content), 37):
        with pytest.raises(WeightsUnreadable):
            read(content[:end])
    for place in range(0, 1200, 7):
        changed = bytearray(file.read_bytes())
        changed[place] ^= 0xFF
        with suppress(WeightsUnreadable):
            read(bytes(changed))
