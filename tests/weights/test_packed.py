"""The layers behind quantised weights, as the libraries that quantise store them."""

import pytest

from loradar.weights import StoredTensor, unpack


def layers(config=None, **tensors):
    """Return the shape and format of each layer behind tensors given as (type, shape)."""
    names = {name: name.replace("__", ".").replace("bitsandbytes.", "bitsandbytes__") for name in tensors}
    stored = [StoredTensor(names[name], dtype, shape) for name, (dtype, shape) in tensors.items()]
    return {layer.path: (layer.shape, layer.packed) for layer in unpack(stored, config or {})}


def test_plain_weights_stay_as_they_are():
    """Biases are no layers, bare parameters keep their name."""
    assert layers(
        a__weight=("BF16", (8, 4)), a__bias=("BF16", (8,)), norm__weight=("F32", (8,)), experts__down=("F32", (2, 8, 4))
    ) == {"a": ((8, 4), None), "norm": ((8,), None), "experts.down": ((2, 8, 4), None)}


@pytest.mark.parametrize(("bits", "rows"), [(4, 16), (8, 32), (2, 8), (3, 12)])
def test_gptq_packs_the_inputs(bits, rows):
    """Of a linear from 128 to 64 features."""
    tensors = {
        "a__qweight": ("I32", (rows, 64)),
        "a__qzeros": ("I32", (1, 64 * bits // 32)),
        "a__scales": ("F16", (1, 64)),
        "a__g_idx": ("I32", (128,)),
    }
    config = {"quantization_config": {"bits": bits, "quant_method": "gptq"}}
    assert layers(config, **tensors) == {"a": ((64, 128), "GPTQ")}


def test_awq_packs_the_outputs():
    """Of the same linear, without a word of the method."""
    tensors = {"a__qweight": ("I32", (128, 8)), "a__qzeros": ("I32", (1, 8)), "a__scales": ("F16", (1, 64))}
    assert layers(**tensors) == {"a": ((64, 128), "AWQ")}


def test_compressed_tensors():
    """Bits are stated deep in the configuration."""
    config = {"quantization_config": {"config_groups": {"group_0": {"weights": {"num_bits": 8}}}}}
    tensors = {
        "a__weight_packed": ("I32", (64, 32)),
        "a__weight_scale": ("BF16", (64, 4)),
        "a__weight_shape": ("I64", (2,)),
    }
    assert layers(config, **tensors) == {"a": ((64, 128), "compressed-tensors")}


def test_mxfp4_experts():
    """As of gpt_oss: blocks of 32 values in 16 bytes, and a scale each."""
    tensors = {
        "m__experts__gate_up_proj_blocks": ("U8", (4, 96, 2, 16)),
        "m__experts__gate_up_proj_scales": ("U8", (4, 96, 2)),
        "m__experts__gate_up_proj_bias": ("BF16", (4, 96)),
    }
    found = layers(**tensors)
    assert found["m.experts.gate_up_proj"] == ((4, 96, 64), "MXFP4")
    assert "m.experts.gate_up_proj_scales" not in found


@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale"])
def test_fp8(scale):
    """The matrix has its own shape; the scales are no layers."""
    tensors = {"a__weight": ("F8_E4M3", (64, 128)), f"a__{scale}": ("F32", (1, 1)), "a__input_scale": ("F32", ())}
    assert layers(**tensors) == {"a": ((64, 128), "FP8")}


def test_nvfp4():
    """Two values in a byte."""
    tensors = {"a__weight": ("U8", (64, 64)), "a__weight_scale": ("F8_E4M3", (64, 8)), "a__weight_scale_2": ("F32", ())}
    assert layers(**tensors) == {"a": ((64, 128), "NVFP4")}


def test_bitsandbytes():
    """4 bits are one column of bytes, of which a bias tells the rows; 8 bits keep their shape."""
    tensors = {
        "a__weight": ("U8", (4096, 1)),
        "a__bias": ("BF16", (64,)),
        "a__weight__absmax": ("F32", (128,)),
        "a__weight__quant_map": ("F32", (16,)),
        "a__weight__quant_state__bitsandbytes__nf4": ("U8", (90,)),
        "b__weight": ("I8", (64, 128)),
        "b__SCB": ("F32", (64,)),
        "b__weight_format": ("U8", ()),
    }
    assert layers(**tensors) == {"a": ((64, 128), "bitsandbytes 4-bit"), "b": ((64, 128), "bitsandbytes 8-bit")}


def test_unknown_sides_are_said():
    """Without a bias the size is right and the sides are not known."""
    stored = [
        StoredTensor("a.weight", "U8", (4096, 1)),
        StoredTensor("a.weight.quant_state.bitsandbytes__nf4", "U8", (9,)),
    ]
    (layer,) = unpack(stored, {})
    assert layer.is_assumed
    assert layer.shape[0] * layer.shape[1] == 8192
