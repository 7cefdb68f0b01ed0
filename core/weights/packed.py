"""Unpack quantised weights: return the layers behind packed tensors, with their unpacked shapes.

Formats are told by the names and types of their tensors, not by the method that a configuration states, because several
methods write the same tensors:

* bitsandbytes: ``weight`` of bytes with ``weight.quant_state.*`` (4 bits), or with ``SCB`` (8 bits);
* GPTQ: ``qweight`` of (in / n, out), AWQ: of (in, out / n); both with ``qzeros`` and ``scales``;
* compressed-tensors: ``weight_packed`` of (out, in / n) with ``weight_scale``;
* MXFP4: ``NAME_blocks`` of (..., in / 32, 16) with ``NAME_scales``;
* FP8 and NVFP4: ``weight`` with ``weight_scale`` or ``weight_scale_inv``; NVFP4 has two values in a byte.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .safetensors import StoredTensor

WORD = 32
MXFP4_BLOCK = 32

BESIDE = frozenset(
    {"qzeros", "scales", "g_idx", "SCB", "weight_format", "absmax", "quant_map", "nested_absmax", "nested_quant_map"}
    | {"weight_scale", "weight_scale_inv", "weight_scale_2", "weight_shape", "weight_zero_point", "weight_g_idx"}
    | {"weight_global_scale", "input_scale", "input_global_scale", "output_scale", "k_scale", "v_scale", "q_scale"}
    | {"activation_scale", "bias_scale", "_scale", "_shift", "perm"}
)
"""Last parts of the names of tensors beside a packed weight."""


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A weight, as the layer that holds it has it.

    Attributes:
        path: Path of the module; of the parameter, if that is not called ``weight``.
        shape: Shape of the weight, unpacked.
        is_weight: Whether the parameter is called ``weight``.
        packed: Format it is packed in, if any.
        is_assumed: Whether the format does not tell the shape: the size is right, the sides are not known.
    """

    path: str
    shape: tuple[int, ...]
    is_weight: bool = True
    packed: str | None = None
    is_assumed: bool = False


def unpack(tensors: Sequence[StoredTensor], config: Mapping[str, Any]) -> tuple[StoredLayer, ...]:
    """Return the weights of the layers behind stored tensors, without biases, scales and other companions.

    Args:
        tensors: The tensors of a model.
        config: Its ``config.json``, which tells the bits of GPTQ and AWQ.
    """
    beside: dict[str, set[str]] = defaultdict(set)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for name in shapes:
        module, _, last = name.rpartition(".")
        beside[module].add(last)
    bits = _find_bits(config)
    layers = (_unpack_one(tensor, beside, shapes, bits) for tensor in tensors)
    return tuple(layer for layer in layers if layer and layer.shape and all(layer.shape))


def _find_bits(config: Mapping[str, Any]) -> int:
    """Return the bits of a packed weight that a quantisation configuration states; 4, which nearly all have, if not."""
    stated = config.get("quantization_config")
    values = [stated] if isinstance(stated, Mapping) else []
    for value in values:
        for name in ("bits", "w_bit", "num_bits"):
            if isinstance(found := value.get(name), int) and found in (2, 3, 4, 8):
                return found
        values.extend(item for item in value.values() if isinstance(item, Mapping))
    return 4


def _unpack_one(
    tensor: StoredTensor, beside: Mapping[str, set[str]], shapes: Mapping[str, tuple[int, ...]], bits: int
) -> StoredLayer | None:
    """Return the layer whose weight a tensor is; ``None`` if it is none, or no weight."""
    module, _, last = tensor.name.rpartition(".")
    shape = tensor.shape
    if last == "bias" or _is_beside(last, module, beside):
        return None
    if last == "weight":
        return _unpack_weight(module, tensor, beside, shapes)
    if last == "qweight" and "scales" in beside[module]:
        return _unpack_words(module, shape, shapes[f"{module}.scales"][-1], bits)
    if last == "weight_packed":
        in_an_item = WORD // bits if tensor.dtype == "I32" else 2
        return StoredLayer(module, (*shape[:-1], shape[-1] * in_an_item), packed="compressed-tensors")
    if last.endswith("_blocks") and f"{last.removesuffix('blocks')}scales" in beside[module]:
        path = f"{module}.{last.removesuffix('_blocks')}"
        return StoredLayer(path, (*shape[:-2], shape[-2] * MXFP4_BLOCK), is_weight=False, packed="MXFP4")
    return StoredLayer(tensor.name, shape, is_weight=False)


def _unpack_words(module: str, shape: tuple[int, ...], outputs: int, bits: int) -> StoredLayer:
    """Return a layer of GPTQ, which packs the inputs, or of AWQ, which packs the outputs."""
    if shape[-1] == outputs:
        return StoredLayer(module, (outputs, shape[0] * WORD // bits), packed="GPTQ")
    return StoredLayer(module, (shape[-1] * WORD // bits, shape[0]), packed="AWQ")


def _unpack_weight(
    module: str, tensor: StoredTensor, beside: Mapping[str, set[str]], shapes: Mapping[str, tuple[int, ...]]
) -> StoredLayer:
    """Return the layer whose parameter is called ``weight``, packed or not."""
    shape, names = tensor.shape, beside[module]
    if f"{module}.weight.quant_state" in beside:
        return _unpack_bytes(module, shape, shapes)
    if "SCB" in names:
        return StoredLayer(module, shape, packed="bitsandbytes 8-bit")
    if tensor.dtype == "U8" and "weight_scale" in names:
        return StoredLayer(module, (*shape[:-1], shape[-1] * 2), packed="NVFP4")
    is_scaled = tensor.dtype.startswith("F8_") or bool(names & {"weight_scale", "weight_scale_inv"})
    return StoredLayer(module, shape, packed="FP8" if is_scaled else None)


def _is_beside(last: str, module: str, beside: Mapping[str, set[str]]) -> bool:
    """Identify a tensor that belongs to a packed weight: by its name and its neighbours."""
    if last in BESIDE or last.startswith("bitsandbytes__"):
        return True
    return last.endswith("_scales") and f"{last.removesuffix('scales')}blocks" in beside[module]


def _unpack_bytes(module: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> StoredLayer:
    """Return a layer of bitsandbytes' 4 bits, which stores one column of bytes; its bias has the number of outputs."""
    numbers = 2 * shape[0]
    bias = shapes.get(f"{module}.bias")
    if bias and numbers % bias[0] == 0:
        return StoredLayer(module, (bias[0], numbers // bias[0]), packed="bitsandbytes 4-bit")
    side = next(size for size in range(int(numbers**0.5), 0, -1) if numbers % size == 0)
    return StoredLayer(module, (numbers // side, side), packed="bitsandbytes 4-bit", is_assumed=True)
