"""The stored parts of an adapter: its configuration, the names and shapes of its tensors, and its writer."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from ...errors import WeightsUnreadable
from ...references.local_paths import find_path, is_folder
from ...weights import LENGTH_BYTES, StoredTensor, parse_header, read_length, read_tensors
from ..checks import invalid
from ..files.checkpoint import without_wrappers
from ..formats.detection import GGUF, PART, Format, detect_format
from ..hub.transfer import CONFIG, PICKLE, WEIGHTS, locate
from ..injection.apply import PREFIX
from ..peft_forms import unreadable

MOST_BYTES = 1 << 30
"""Bytes of factors whose values are read, the smallest first."""
MOST_CONFIG_BYTES = 1 << 20
WRITTEN_BY: Mapping[Format, str] = {
    "diffusers": "is in diffusers' format, for pipeline.load_lora_weights",
    "kohya": "is in kohya's format (sd-scripts), which diffusers' pipeline.load_lora_weights reads too",
    "comfyui": "is in ComfyUI's format, which diffusers' pipeline.load_lora_weights reads too",
    "gguf": "is a LoRA of llama.cpp in GGUF, for its --lora",
    "unknown": "holds no factors of a known format",
}
"""What a file of each other format is, with the way out."""

_OWN_NAME = re.compile(
    r"^(lora_[AB]|lora_magnitude_vector)\.[^.]+\.(weight|bias)$|^(lora_embedding_[AB]|ia3_l)\.[^.]+$"
)
_INSIDE = re.compile(r"\.base_layer(?=\.|$)")
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


@dataclass(frozen=True)
class Factors:
    """The tensors of an adapter on one layer.

    Attributes:
        location: Path of the tensors in the file, without wrappers: of the layer, with ``base_layer`` for each adapter
            around it.
        tensors: The tensors by their names in PEFT's files.
        keys: Their keys in the file, by the same names.
    """

    location: str
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path of the layer."""
        return _INSIDE.sub("", self.location)

    @property
    def pair(self) -> tuple[StoredTensor, StoredTensor] | None:
        """Both factors of LoRA, if both are stored."""
        for end in ("A.weight", "embedding_A"):
            first = self.tensors.get(f"lora_{end}")
            second = self.tensors.get(f"lora_{end.replace('A', 'B')}")
            if first is not None and second is not None and len(first.shape) > 1 and len(second.shape) > 1:
                return first, second
        return None

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank that each factor has; of experts all together."""
        return (self.pair[0].shape[0], self.pair[1].shape[1]) if self.pair else ()

    @property
    def sides(self) -> tuple[int, int] | None:
        """The numbers of inputs and outputs of the layer that the factors are for."""
        return (self.pair[0].shape[1], self.pair[1].shape[0]) if self.pair else None


@dataclass(frozen=True)
class StoredAdapter:
    """A saved adapter.

    Attributes:
        file: The file of its tensors.
        format: The library whose names they have.
        config: The content of ``adapter_config.json``; empty without one.
        factors: The factors by location.
        saved: Keys of tensors that are no factors, such as those of modules trained in full, by their plain names.
        unwrapped: Keys that hold names of wrappers, or the name of an adapter.
        tensors: All tensors of the file.
        content: The file itself, if it was sent; one that was not sent, of which the header was, has no values.
    """

    file: Path
    format: Format
    config: Mapping[str, Any]
    factors: Mapping[str, Factors]
    saved: Mapping[str, str]
    unwrapped: tuple[str, ...]
    tensors: tuple[StoredTensor, ...] = ()
    content: bytes | None = None


def name_format(adapter: StoredAdapter) -> str:
    """Return the format of an adapter; ``unsloth`` for PEFT's as unsloth marks it in ``auto_mapping``."""
    mapping = adapter.config.get("auto_mapping")
    is_marked = isinstance(mapping, dict) and any(str(key).startswith("unsloth") for key in mapping)
    return "unsloth" if adapter.format == "peft" and is_marked else adapter.format


def read_sent(config: Mapping[str, Any], header: bytes, content: bytes | None) -> StoredAdapter:
    """Read an adapter that was sent.

    Args:
        config: The content of its ``adapter_config.json``; empty without one.
        header: The JSON at the start of its ``.safetensors`` file; not read if the file is there.
        content: The whole file, if it was sent.

    Raises:
        InvalidConfig: If two of its tensors are the same factor.
        WeightsUnreadable: If the header is damaged.
    """
    if content is None:
        return _describe(Path(WEIGHTS), config, parse_header(header, WEIGHTS))
    if content.startswith(GGUF):
        return StoredAdapter(Path(WEIGHTS), "gguf", config, {}, {}, ())
    end = LENGTH_BYTES + read_length(content, WEIGHTS)
    tensors = parse_header(content[LENGTH_BYTES:end], WEIGHTS, len(content))
    return replace(_describe(Path(WEIGHTS), config, tensors), content=content)


def read_adapter(adapter: str | PathLike[str]) -> StoredAdapter:
    """Read the configuration and the header of an adapter: of a folder, a file, or a repo on the hub.

    Raises:
        AdapterUnreadable: If there is none, or its configuration is damaged.
        WeightsUnreadable: If the header is damaged.
        HubFailed: If it cannot be downloaded.
    """
    path = find_path(str(adapter))
    file = path if path and path.is_file() else _find_file(locate(adapter, "doctor", {}))
    folder = file.parent
    config = _read_config(folder / CONFIG) if (folder / CONFIG).exists() else {}
    with file.open("rb") as start:
        if start.read(len(GGUF)) == GGUF:
            return StoredAdapter(file, "gguf", config, {}, {}, ())
    return _describe(file, config, read_tensors(file))


def _describe(file: Path, config: Mapping[str, Any], tensors: tuple[StoredTensor, ...]) -> StoredAdapter:
    """Return the adapter whose header lists these tensors."""
    format_ = detect_format([tensor.name for tensor in tensors], is_configured=bool(config))
    if format_ != "peft":
        return StoredAdapter(file, format_, config, {}, {}, (), tensors)
    return _group(file, config, tensors)


def _find_file(folder: Path) -> Path:
    """Return the file of the tensors in a folder."""
    if not is_folder(str(folder)):
        raise unreadable(folder, "is no folder. Give the folder that save_pretrained wrote, a file, or hub:org/repo")
    file = folder / WEIGHTS
    if file.exists():
        return file
    if (folder / PICKLE).exists():
        way_out = "Load it once and save it: PeftModel.from_pretrained(model, folder).save_pretrained(folder)"
        raise unreadable(folder / PICKLE, f"is a pickle, which has no header to examine. {way_out}")
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        others = f", and there are {len(found)} others: name one" if found else ""
        raise unreadable(file, f"is missing{others}")
    return found[0]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_CONFIG_BYTES:
            raise unreadable(path, f"has more than {MOST_CONFIG_BYTES} bytes: that is no configuration")
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, f"is not readable JSON ({error})") from error
    if not isinstance(data, dict):
        raise unreadable(path, f"holds a {type(data).__name__}, not an adapter configuration")
    return data


def _group(file: Path, config: Mapping[str, Any], tensors: Iterable[StoredTensor]) -> StoredAdapter:
    """Return an adapter in PEFT's format with its tensors grouped by layer."""
    factors: dict[str, Factors] = {}
    saved: dict[str, str] = {}
    unwrapped: list[str] = []
    tensors = tuple(tensors)
    for tensor in tensors:
        plain = _unwrap(tensor.name)
        found = PART.fullmatch(plain)
        location, name = (found["path"], found["name"]) if found else ("", "")
        own = _OWN_NAME.match(name)
        if own:
            name = f"{own[1]}.{own[2]}" if own[1] else own[3]
        if not tensor.name.startswith(PREFIX) or plain != tensor.name.removeprefix(PREFIX) or own:
            unwrapped.append(tensor.name)
        if not found:
            saved[plain] = tensor.name
            continue
        group = factors.setdefault(location, Factors(location))
        if name in group.keys:
            raise invalid("tensors", tensor.name, f"and {group.keys[name]!r} are the same factor: keep one.")
        group.tensors[name], group.keys[name] = tensor, tensor.name
    return StoredAdapter(file, "peft", config, factors, saved, tuple(unwrapped), tensors)


def _unwrap(key: str) -> str:
    """Return the key of a tensor without PEFT's prefix, however often it is there, and without names of wrappers."""
    plain = _WRAPPERS.sub("", without_wrappers(key))
    while plain.startswith(PREFIX):
        plain = plain.removeprefix(PREFIX).removeprefix("module.")
    return plain


@contextmanager
def open_tensors(adapter: StoredAdapter) -> Iterator[Callable[[str], torch.Tensor]]:
    """Open the file of an adapter, also of one that was sent, and give the function that reads a tensor of it.

    Raises:
        WeightsUnreadable: If safetensors, which is stricter than the header was read, rejects it.
    """
    try:
        if adapter.content is not None:
            yield load(adapter.content).__getitem__
            return
        with safe_open(adapter.file, "pt") as file:
            yield file.get_tensor
    except SafetensorError as error:
        why = " ".join(str(error).split())
        raise WeightsUnreadable(f"{adapter.file} cannot be read: {why}.", file=str(adapter.file)) from error


def load_tensors(adapter: StoredAdapter) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter.

    Raises:
        WeightsUnreadable: As ``open_tensors``.
    """
    with open_tensors(adapter) as read:
        return {tensor.name: read(tensor.name) for tensor in adapter.tensors}


@dataclass(frozen=True)
class Values:
    """Findings from the values of the factors.

    Attributes:
        zero: Locations whose second factor is all zero.
        invalid: Keys of tensors with values that are no numbers.
        unread: Number of factors that were too large to read.
    """

    zero: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    unread: int = 0


def read_values(adapter: StoredAdapter) -> Values:
    """Read the values of the factors, the smallest first, up to ``MOST_BYTES``."""
    ordered = sorted(
        (
            (tensor.size, key, name, location)
            for location, group in adapter.factors.items()
            for (name, tensor), key in zip(group.tensors.items(), group.keys.values(), strict=True)
        ),
    )
    zero, wrong, left, unread = defaultdict[str, bool](bool), list[str](), MOST_BYTES, 0
    with open_tensors(adapter) as read:
        for size, key, name, location in ordered:
            left -= size
            if left < 0:
                unread += 1
                continue
            tensor = read(key)
            if not tensor.is_floating_point() or not prod(tensor.shape):
                continue
            numbers = tensor.float()  # float8 has no isfinite
            if not numbers.isfinite().all():
                wrong.append(key)
            if name in ("lora_B.weight", "lora_embedding_B", "lora_B.bias"):
                zero[location] = not numbers.any().item() and zero.get(location, True)
    return Values(tuple(path for path, is_zero in zero.items() if is_zero), tuple(wrong), unread)
