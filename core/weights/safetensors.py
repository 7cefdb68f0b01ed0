"""The header of a safetensors file: 8 bytes of length, then JSON with the type, shape and place of each tensor.

The format is described at https://huggingface.co/docs/safetensors/index#format. Its own library reads whole files; here
the file is most often elsewhere, and its content from anybody, so every number is checked before it is used.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from operator import itemgetter
from typing import Any

from ..domain.submissions import LARGEST_DIMENSION, MOST_DIMENSIONS
from ..errors import WeightsUnreadable
from ..validation.text import explain_invalid_path, shorten

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 25_000_000
"""Largest header that is read, as in huggingface_hub; real ones have up to a few MB."""
MOST_TENSORS = 200_000

_BY_BITS = {
    64: ("F64", "I64", "U64", "C64"),
    32: ("F32", "I32", "U32"),
    16: ("F16", "BF16", "I16", "U16"),
    8: ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    6: ("F6_E2M3", "F6_E3M2"),
    4: ("F4",),
}
BITS = {name: bits for bits, names in _BY_BITS.items() for name in names}
"""Bits of an element by the format's name of its type."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a weights file."""

    name: str
    dtype: str
    """The format's name of its type, such as ``BF16``."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * BITS[self.dtype] // 8


def read_length(start: bytes, where: str) -> int:
    """Return the length of the JSON part, given the first bytes of a file.

    Raises:
        WeightsUnreadable: If the file is shorter, or the length absurd.
    """
    if len(start) < LENGTH_BYTES:
        raise WeightsUnreadable(f"{where} has {len(start)} bytes: that is no safetensors file.", file=where)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if not 2 <= length <= MOST_HEADER_BYTES:  # noqa: PLR2004 - an empty JSON object
        message = f"{where} states a header of {length} bytes; up to {MOST_HEADER_BYTES} are read."
        raise WeightsUnreadable(f"{message} Is it a safetensors file?", file=where)
    return length


def parse_header(content: bytes, where: str, file_size: int | None = None) -> tuple[StoredTensor, ...]:
    """Return the tensors that the JSON part of a header lists, in the order of their places in the file.

    Args:
        content: The JSON part.
        where: Name of the file, for errors.
        file_size: Size of the whole file in bytes, if known.

    Raises:
        WeightsUnreadable: If it is no header of this format; names the tensor.
    """
    try:
        header = json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=_reject_constant)
        if b"\\u" in content:
            json.dumps(header, ensure_ascii=False).encode()  # half a character is no text: UnicodeEncodeError
    except Twice as error:
        raise WeightsUnreadable(f"The header of {where} has the name {shorten(str(error))} twice.") from None
    except (ValueError, RecursionError) as error:
        raise WeightsUnreadable(f"The header of {where} is no JSON ({type(error).__name__}).", file=where) from None
    if not isinstance(header, dict):
        raise WeightsUnreadable(f"The header of {where} is no JSON object.", file=where)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsUnreadable(f"The header of {where} has a __metadata__ that is not of texts alone.", file=where)
    if len(header) > MOST_TENSORS:
        message = f"The header of {where} lists {len(header)} tensors; up to {MOST_TENSORS} are read."
        raise WeightsUnreadable(message, file=where)
    places = [(*_read_place(entry, name, where), _read_tensor(name, entry, where)) for name, entry in header.items()]
    places.sort(key=itemgetter(0, 1))  # tensors without elements share their place
    _check_places(places, where, None if file_size is None else file_size - LENGTH_BYTES - len(content))
    return tuple(tensor for _, _, tensor in places)


class Twice(ValueError):
    """A name that stands twice in a JSON object."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, as ``object_pairs_hook``.

    Raises:
        Twice: If a name stands twice in it.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        raise Twice(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return found


def _reject_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _read_place(entry: Any, name: str, where: str) -> tuple[int, int]:
    place = entry.get("data_offsets") if isinstance(entry, dict) else None
    if isinstance(place, list) and [type(offset) for offset in place] == [int, int] and 0 <= place[0] <= place[1]:
        return place[0], place[1]
    raise WeightsUnreadable(
        f"Tensor {shorten(name)} of {where} has no place in the file.", file=where, tensor=name[:200]
    )


def _read_tensor(name: str, entry: dict[str, Any], where: str) -> StoredTensor:
    """Return a tensor of a header whose name, type, shape and place are possible."""
    dtype, shape = entry.get("dtype"), entry.get("shape")
    fault = None
    if explain_invalid_path(name):
        fault = explain_invalid_path(name)
    elif not isinstance(dtype, str) or dtype not in BITS:
        fault = f"Tensor {shorten(name)} has the unknown type {shorten(str(dtype))}."
    elif (
        not isinstance(shape, list)
        or len(shape) > MOST_DIMENSIONS
        or not all(type(size) is int and 0 <= size <= LARGEST_DIMENSION for size in shape)
    ):
        fault = f"Tensor {shorten(name)} has the impossible shape {shorten(str(shape))}."
    else:
        tensor = StoredTensor(name, dtype, tuple(shape))
        begin, end = _read_place(entry, name, where)
        if end - begin == tensor.size:
            return tensor
        fault = f"Tensor {shorten(name)} takes {tensor.size} bytes by its shape, and {end - begin} by its place."
    raise WeightsUnreadable(f"{where}: {fault}", file=where, tensor=name[:200])


def _check_places(places: Iterable[tuple[int, int, StoredTensor]], where: str, data_size: int | None) -> None:
    """Check that the tensors fill the data without gaps or overlaps, as the format demands."""
    ends = [(0, ""), *((end, tensor.name) for _, end, tensor in places)]
    for (begin, _, tensor), (end, _) in zip(places, ends, strict=False):
        if begin != end:
            message = f"Tensor {shorten(tensor.name)} of {where} begins at {begin}, where the one before ends at {end}."
            raise WeightsUnreadable(message, file=where, tensor=tensor.name[:200])
    if data_size is not None and ends[-1][0] != data_size:
        message = f"{where} has {data_size} bytes of data; its header lists {ends[-1][0]}. Is the file complete?"
        raise WeightsUnreadable(message, file=where)
