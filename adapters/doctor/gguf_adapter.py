"""Examine a LoRA of llama.cpp in GGUF, by its header, beside the model it is for."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ...discovery import name_as_gguf
from ...domain.layers import Layer
from ...errors import MissingExtra
from ...validation.text import shorten
from ...weights import GgufHeader, StoredTensor, check_size, read_gguf
from ...weights.diagnoses import Diagnosis, Finding
from .base import Base, matches

FIRST, SECOND = ".lora_a", ".lora_b"
MOST = 3


class Pair(NamedTuple):
    """The factors of one layer, of which one may be missing."""

    first: StoredTensor | None
    second: StoredTensor | None


def read_header(file: Path) -> GgufHeader:
    """Return the header of a file.

    Raises:
        WeightsUnreadable: If it is damaged.
    """
    with file.open("rb") as content:

        def read(start: int, length: int) -> bytes:
            content.seek(start)
            return content.read(length)

        header = read_gguf(read, file.name)
    check_size(header, file.stat().st_size, file.name)
    return header


def examine_gguf(header: GgufHeader, name: str, base: Base | None, note: str) -> Diagnosis:
    """Examine a LoRA of llama.cpp.

    Args:
        header: Its header.
        name: Its name, for the diagnosis.
        base: The model; ``None`` if it is not known.
        note: What is not known of it.
    """
    pairs = _pair(header)
    findings = [*_find_faults(header, pairs)]
    landed: dict[str, list[Layer]] = {}
    notes = [note, "of GGUF the header alone is read: no value was found to be zero or NaN"]
    if base is not None and base.layers:
        architecture = str(header.metadata.get("general.architecture", ""))
        try:
            blocks = max(
                (layer.path.count(".") and _find_block(layer.path) for layer in base.layers.values()), default=0
            )
            names = name_as_gguf(architecture, base.layers, blocks + 1)
        except MissingExtra as error:
            names, notes = {}, [*notes, f"names were not compared: {error.message}"]
        by_name: dict[str, list[Layer]] = defaultdict(list)
        for path, theirs in names.items():
            by_name[theirs].append(base.layers[path])
        landed = {theirs: by_name[theirs] for theirs in pairs if theirs in by_name}
        findings += _find_misfits(pairs, landed) if names else []
    towers = [layers[0].tower for layers in landed.values()]
    findings.sort(key=lambda finding: finding.level != "error")
    return Diagnosis(
        adapter=name,
        format="gguf",
        base=base.reference if base else None,
        note="; ".join(filter(None, notes)),
        layers=len(pairs),
        landed=len(landed),
        towers={tower: towers.count(tower) for tower in dict.fromkeys(towers)},
        renames={},
        findings=tuple(findings),
    )


def _find_block(path: str) -> int:
    return next((int(part) for part in path.split(".") if part.isdecimal()), 0)


def _pair(header: GgufHeader) -> dict[str, Pair]:
    """Return the factors by the name of their layer."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    stems = dict.fromkeys(
        name.removesuffix(FIRST).removesuffix(SECOND) for name in tensors if name.endswith((FIRST, SECOND))
    )
    return {stem.removesuffix(".weight"): Pair(tensors.get(stem + FIRST), tensors.get(stem + SECOND)) for stem in stems}


def _find_faults(header: GgufHeader, pairs: Mapping[str, Pair]) -> Iterator[Finding]:
    """Yield the faults of the file alone."""
    kind = (header.metadata.get("general.type"), header.metadata.get("adapter.type"))
    if kind != ("adapter", "lora"):
        stated = shorten(" and ".join(map(str, kind)))
        message = f"general.type and adapter.type are {stated}, not 'adapter and lora'."
        yield Finding("format", "error", message, "Convert it with llama.cpp's convert_lora_to_gguf.py.")
    alpha = header.metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not alpha:
        message = f"adapter.lora.alpha is {shorten(str(alpha))}: llama.cpp scales the update by it."
        yield Finding("alpha", "error", message, "Convert it again from the adapter with its configuration.")
    halves = [name for name, pair in pairs.items() if pair.first is None or pair.second is None]
    if halves:
        message = f"{len(halves)} layers have one factor of two: {', '.join(halves[:MOST])}."
        yield Finding("incomplete", "error", message, "Convert it again: the file is a part of it.")
    uneven = [name for name, (a, b) in pairs.items() if a and b and a.shape[0] != b.shape[-1]]
    if uneven:
        message = f"The two factors of {len(uneven)} layers have different ranks: {', '.join(uneven[:MOST])}."
        yield Finding("rank", "error", message, "Convert it again: no update follows from such factors.")
    others = [tensor.name for tensor in header.tensors if not tensor.name.endswith((FIRST, SECOND))]
    if others:
        message = f"{len(others)} tensors are no factors, such as {others[0]}: llama.cpp rejects the file."
        yield Finding("saved", "error", message, "Convert the adapter without modules that are saved in full.")


def _find_misfits(pairs: Mapping[str, Pair], landed: Mapping[str, list[Layer]]) -> Iterator[Finding]:
    """Yield the layers that the model does not have, or has with other widths."""
    lost = [name for name in pairs if name not in landed]
    if lost:
        message = f"The model has no layer for {len(lost)} of {len(pairs)}: {', '.join(lost[:MOST])}."
        yield Finding("unknown-layers", "error", message, "Give the model it was trained on: --model.")
    wrong = [
        f"{name} is for {pair.first.shape[-1]} -> {pair.second.shape[0]}"
        for name, pair in pairs.items()
        if name in landed and pair.first and pair.second
        if not any(matches(layer, (pair.first.shape[-1], pair.second.shape[0])) for layer in landed[name])
    ]
    if wrong:
        message = f"The factors of {len(wrong)} layers do not fit: {'; '.join(wrong[:MOST])}: it is for another base."
        yield Finding("shapes", "error", message, "Give the model it was trained on: --model.")
