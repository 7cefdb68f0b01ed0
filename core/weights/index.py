"""The index of a sharded checkpoint: which tensor is in which file, and which files must be read to know all shapes.

A model of a thousand shards repeats a few dozen shapes. The headers of the shards that hold one tensor of each kind of
place tell these; the size that the index states for the whole tells whether the other blocks have the same.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsUnreadable
from ..validation.text import explain_invalid_path, shorten
from .safetensors import MOST_TENSORS, StoredTensor, Twice, unique

MOST_INDEX_BYTES = 64 << 20

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,250}")


@dataclass(frozen=True, slots=True)
class Index:
    """The content of an index.

    Attributes:
        files: The file of each tensor, by its name.
        total_size: Bytes of all tensors, if stated.
    """

    files: Mapping[str, str]
    total_size: int | None

    @property
    def shards(self) -> list[str]:
        """The files, in order."""
        return sorted(set(self.files.values()))


def parse_index(content: bytes, where: str) -> Index:
    """Return the content of ``*.index.json``.

    Raises:
        WeightsUnreadable: If it is none, or names a file elsewhere.
    """
    try:
        index = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except Twice as error:
        raise WeightsUnreadable(f"{where} has the name {shorten(str(error))} twice.", file=where) from None
    except (ValueError, RecursionError) as error:
        raise WeightsUnreadable(f"{where} is no JSON ({type(error).__name__}).", file=where) from None
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files or len(files) > MOST_TENSORS:
        message = f"{where} has no weight_map of 1 to {MOST_TENSORS} tensors: it is no index of a checkpoint."
        raise WeightsUnreadable(message, file=where)
    for name, file in files.items():
        if fault := explain_invalid_path(name):
            raise WeightsUnreadable(f"{where}: {fault}", file=where)
        if not isinstance(file, str) or not _FILE.fullmatch(file) or ".." in file:
            raise WeightsUnreadable(f"{where} names the file {shorten(str(file))}, which is not beside it.", file=where)
    return Index(files, _read_total(index.get("metadata")))


def _read_total(metadata: Any) -> int | None:
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(total) if isinstance(total, int | float) and 0 < total < 1 << 60 else None


def place_of(name: str) -> str:
    """Return the name of a tensor with ``*`` in place of each number, which tensors of one kind of place share."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def choose_shards(index: Index, most: int) -> list[str]:
    """Return the shards whose headers have the shape of every kind of place; all of them, up to ``most``.

    The first and the last tensor of each kind of place are in them, because the ends of a stack differ most often.
    """
    shards = index.shards
    if len(shards) <= most:
        return shards
    by_place: dict[str, list[str]] = defaultdict(list)
    for name, file in index.files.items():
        by_place[place_of(name)].append(file)
    ends = {place: (min(files), max(files)) for place, files in by_place.items()}
    return sorted({file for pair in ends.values() for file in pair})


def estimate_header(names: Iterable[str]) -> int:
    """Return about how many bytes the header of a file with these tensors has, rather more than less."""
    return sum(len(name) + 110 for name in names) + 512


def complete(index: Index, read: Sequence[StoredTensor]) -> tuple[list[StoredTensor], list[str]]:
    """Return all tensors of an index, and a description of those that were not read.

    Args:
        index: The index.
        read: The tensors of the headers that were read.

    Raises:
        WeightsUnreadable: If a file lacks a tensor that the index says it holds.
    """
    known = {tensor.name: tensor for tensor in read if tensor.name in index.files}
    by_place = {place_of(tensor.name): tensor for tensor in known.values()}
    found, assumed = [], 0
    for name, file in index.files.items():
        tensor = known.get(name) or by_place.get(place_of(name))
        if tensor is None:
            raise WeightsUnreadable(f"{file} lacks the tensor {shorten(name)} that the index says it holds.", file=file)
        assumed += tensor.name != name
        found.append(StoredTensor(name, tensor.dtype, tensor.shape))
    if not assumed:
        return found, []
    return found, [_describe_assumed(assumed, found, index.total_size)]


def _describe_assumed(assumed: int, tensors: Sequence[StoredTensor], stated: int | None) -> str:
    total = sum(tensor.size for tensor in tensors)
    start = f"the shapes of {assumed} of {len(tensors)} tensors were taken from the same place in another block"
    if stated is None:
        return f"{start}; the index states no size to check them by"
    if stated == total:
        return f"{start}; with them the size of all is the one that the index states"
    return f"{start}, but not all of them hold: together they have {total} bytes, where the index states {stated}"
