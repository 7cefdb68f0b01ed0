"""The header of a GGUF file, as llama.cpp writes it: metadata, then the names, types and shapes of the tensors.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package ``gguf`` maps whole
files and loops over counts that a file states; here the file is most often elsewhere, and its content from anybody, so
every count is checked before it is used, and long lists (the vocabulary) are passed over.
"""

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from ..domain.submissions import LARGEST_DIMENSION
from ..errors import WeightsUnreadable
from ..validation.text import explain_invalid_path, shorten
from .safetensors import MOST_TENSORS, StoredTensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_BYTES = 64 << 20
"""Bytes of a header that are read; the vocabulary in it takes up to about 10 MB."""
MOST_FIELDS = 10_000
MOST_ITEMS = 4_000_000
MOST_TEXT = 1 << 20
MOST_SIDES = 4
PART = 256 << 10

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Formats of ``struct`` by the number of a type."""

PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
"""Names, as safetensors has them, of the types of tensors that are not quantised, by their number in ggml.h."""
QUANTISED = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Names of the quantised types, whose tensors state the shape that they have without it, with the elements of a block
and the bytes that it takes (``GGML_QUANT_SIZES`` of the package ``gguf``)."""

ALIGNMENT, MOST_ALIGNMENT = "general.alignment", 1 << 16
"""The field of the number that each place of a tensor is a multiple of, by default 32."""

Read = Callable[[int, int], bytes]
"""Return so many bytes from a place of the file, or fewer at its end."""


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Attributes:
        metadata: The fields that hold one value, such as ``general.architecture``.
        tensors: The tensors, with their sides in PyTorch's order; a quantised one as if it were not.
        quantised: The number of tensors by quantised type.
        lengths: The lengths of the fields that hold lists, such as the vocabulary.
        end: Bytes that the file has at least, by the place of its last tensor.
    """

    metadata: dict[str, Any]
    tensors: tuple[StoredTensor, ...]
    quantised: dict[str, int]
    lengths: dict[str, int]
    end: int


class _Cursor:
    """A place in a file that moves on as values are read."""

    def __init__(self, read: Read, where: str) -> None:
        self.read_part, self.where = read, where
        self.content, self.place = bytearray(), 0

    def take(self, length: int) -> memoryview:
        """Return the next bytes.

        Raises:
            WeightsUnreadable: If the file ends before, or the header is too long.
        """
        end = self.place + length
        if end > MOST_BYTES:
            message = f"The header of {self.where} has more than {MOST_BYTES} bytes, or states so. Is it a GGUF file?"
            raise WeightsUnreadable(message, file=self.where)
        while len(self.content) < end:
            part = self.read_part(len(self.content), max(PART, end - len(self.content)))
            if not part:
                message = f"{self.where} ends inside its header, after {len(self.content)} bytes."
                raise WeightsUnreadable(message, file=self.where)
            self.content += part
        found = memoryview(bytes(self.content[self.place : end]))
        self.place = end
        return found

    def number(self, code: str) -> Any:
        """Return the next number."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, most: int, what: str) -> int:
        """Return the next length, if it is possible.

        Raises:
            WeightsUnreadable: If it is more.
        """
        found: int = self.number("Q")
        if found > most:
            message = f"{self.where} states {found} {what}; up to {most} are read. Is it a GGUF file?"
            raise WeightsUnreadable(message, file=self.where)
        return found

    def text(self) -> str:
        """Return the next string."""
        return bytes(self.take(self.count(MOST_TEXT, "bytes of a string"))).decode("utf-8", "replace")


def read_gguf(read: Read, where: str) -> GgufHeader:
    """Return the header of a GGUF file.

    Args:
        read: Gives parts of the file.
        where: Name of the file, for errors.

    Raises:
        WeightsUnreadable: If it has no header of this format, or an absurd one; names the tensor.
    """
    cursor = _Cursor(read, where)
    if bytes(cursor.take(len(MAGIC))) != MAGIC:
        raise WeightsUnreadable(f"{where} does not begin with {MAGIC.decode()}: that is no GGUF file.", file=where)
    version = cursor.number("I")
    if version not in VERSIONS:
        message = (
            f"{where} is of version {version} of GGUF; {' and '.join(map(str, VERSIONS))} are read, little-endian."
        )
        raise WeightsUnreadable(message, file=where)
    tensors, fields = cursor.count(MOST_TENSORS, "tensors"), cursor.count(MOST_FIELDS, "fields")
    metadata, lengths = _read_fields(cursor, fields)
    found: dict[str, StoredTensor] = {}
    quantised: Counter[str] = Counter()
    places: list[tuple[int, int, str]] = []
    for _ in range(tensors):
        tensor, kind, place = _read_tensor(cursor)
        if tensor.name in found:
            raise WeightsUnreadable(f"The header of {where} has the tensor {shorten(tensor.name)} twice.", file=where)
        found[tensor.name] = tensor
        size = tensor.size
        if kind in QUANTISED:
            kind_name, elements, length = QUANTISED[kind]
            quantised[kind_name] += 1
            size = prod(tensor.shape) // elements * length
        places.append((place, place + size, tensor.name))
    _check_places(places, where)
    alignment = metadata.get(ALIGNMENT, 32)
    if type(alignment) is not int or not 0 < alignment <= MOST_ALIGNMENT:
        message = f"{where} states an impossible {ALIGNMENT}: {shorten(str(alignment))}."
        raise WeightsUnreadable(message, file=where)
    start = -(-cursor.place // alignment) * alignment
    end = start + places[-1][1] if places else cursor.place
    return GgufHeader(metadata, tuple(found.values()), dict(quantised), lengths, end)


def _read_fields(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the fields that hold one value, and the lengths of those that hold lists."""
    metadata: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for _ in range(count):
        name = cursor.text()[:200]
        kind = cursor.number("I")
        if kind == ARRAY:
            lengths[name] = _pass_over(cursor)
        elif name in metadata:
            message = f"The header of {cursor.where} has the field {shorten(name)} twice."
            raise WeightsUnreadable(message, file=cursor.where)
        else:
            metadata[name] = _read_value(cursor, kind)
    return metadata, lengths


def check_size(header: GgufHeader, size: int | None, where: str) -> None:
    """Check that a file is as long as its header says.

    Raises:
        WeightsUnreadable: If it is shorter.
    """
    if size is not None and size < header.end:
        message = f"{where} has {size} bytes; by its header it takes {header.end}. Is the file complete?"
        raise WeightsUnreadable(message, file=where)


def _check_places(places: list[tuple[int, int, str]], where: str) -> None:
    """Check that no tensors overlap."""
    places.sort()
    for (_, end, one), (begin, _, other) in pairwise(places):
        if begin < end:
            message = f"Tensor {shorten(other)} of {where} begins at {begin}, where {shorten(one)} ends at {end}."
            raise WeightsUnreadable(message, file=where, tensor=other[:200])


def _read_value(cursor: _Cursor, kind: int) -> Any:
    if kind == STRING:
        return cursor.text()
    if kind not in SCALARS:
        raise WeightsUnreadable(f"{cursor.where} has a field of the unknown type {kind}.", file=cursor.where)
    return cursor.number(SCALARS[kind])


def _pass_over(cursor: _Cursor) -> int:
    """Move behind a list, and return its length."""
    kind = cursor.number("I")
    length = cursor.count(MOST_ITEMS, "items of a list")
    if kind in SCALARS:
        cursor.take(length * struct.calcsize(f"<{SCALARS[kind]}"))
    elif kind == STRING:
        for _ in range(length):
            cursor.take(cursor.count(MOST_TEXT, "bytes of a string"))
    else:
        raise WeightsUnreadable(f"{cursor.where} has a list of the unknown type {kind}.", file=cursor.where)
    return length


def _read_tensor(cursor: _Cursor) -> tuple[StoredTensor, int, int]:
    """Return the next tensor, the number of its type, and its place in the data."""
    name = cursor.text()
    sides = cursor.number("I")
    shape = [cursor.number("Q") for _ in range(sides)] if sides <= MOST_SIDES else []
    kind = cursor.number("I")
    place: int = cursor.number("Q")
    fault = explain_invalid_path(name)
    if fault is None and (not shape or not all(0 < side <= LARGEST_DIMENSION for side in shape)):
        fault = f"Tensor {shorten(name)} has an impossible shape."
    if fault is None and kind not in PLAIN and kind not in QUANTISED:
        fault = f"Tensor {shorten(name)} has the unknown type {kind}."
    if fault:
        raise WeightsUnreadable(f"{cursor.where}: {fault}", file=cursor.where, tensor=name[:200])
    return StoredTensor(name, PLAIN.get(kind, "F16"), tuple(reversed(shape))), kind, place
