"""Read a stored model: its configuration, and the names, types and shapes of its weights."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..domain.architectures import Architecture
from ..errors import InvalidReference, WeightsUnreadable, quoted
from ..references import HubFolder, Reference
from ..references.local_paths import find_path
from ..validation.text import explain_invalid_name, shorten
from .gguf import GgufHeader, check_size, read_gguf
from .index import MOST_INDEX_BYTES, choose_shards, complete, estimate_header, parse_index
from .safetensors import LENGTH_BYTES, StoredTensor, parse_header, read_length
from .stores import Folder, HubStore, Store

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
PIPELINE = "model_index.json"
MOST_CONFIG_BYTES = 1 << 20
FIRST_BYTES = 64 << 10
"""Bytes that are asked for of a file whose header may have any length."""

INDEX_ENDING = ".safetensors.index.json"
ENDING = ".safetensors"
GGUF_ENDING = ".gguf"
PREFERRED = ("model", "diffusion_pytorch_model", "pytorch_model")
"""Names of a model's own weights, before those of variants such as ``model.fp16``."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".bin.index.json")


@dataclass(frozen=True)
class Weights:
    """The stored parts of a model.

    Attributes:
        reference: Where it was found.
        config: Its ``config.json``; empty without one.
        tensors: Its tensors, in the order of the file or the index.
        headers: Number of headers that were read.
        files: Number of files of weights.
        transferred: Bytes that came from a hub.
        assumed: What was not read, in words.
        gguf: The header, if the file is one of llama.cpp.
    """

    reference: str
    config: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...]
    headers: int
    files: int
    transferred: int = 0
    assumed: tuple[str, ...] = field(default=())
    gguf: GgufHeader | None = None


def read_weights(text: str, *, for_others: bool = False) -> Weights:
    """Read the configuration of a model, and the headers of its weights.

    Args:
        text: ``hub:org/repo``, with a subfolder or ``@revision`` if needed, or ``file:PATH`` of a folder or a file.
        for_others: Whether another person requests it: no token is sent, and no file of this machine is read.

    Raises:
        InvalidReference: If it is neither, or names an adapter, or a pipeline of several models.
        HubFailed: If the hub does not give the files.
        WeightsUnreadable: If there are no weights whose header can be read; names the file.
        MissingExtra: If huggingface_hub is not installed.
    """
    reference = Reference.parse(text)
    if reference.scheme == "hub":
        hub = HubStore(HubFolder.parse(text), is_anonymous=for_others)
        cached = None if for_others else hub.find_cached()
        if cached is not None:
            return read_store(str(reference), cached, cached.list_files())
        return read_store(str(reference), hub, hub.list_files(), lambda: hub.transferred)
    if reference.scheme != "file" or for_others:
        message = f"{text!r} is stored nowhere: write hub:org/repo, or file:PATH of a folder or a .safetensors file."
        raise InvalidReference(message, reference=text)
    path = find_path(reference.name)
    if path and path.is_dir():
        folder = Folder(path)
        return read_store(str(reference), folder, folder.list_files())
    if not path or not path.is_file():
        raise InvalidReference(f"{shorten(reference.name)} is no file and no folder.", reference=text)
    folder = Folder(path.parent)
    beside = folder.list_files() & {CONFIG}
    return read_store(str(reference), folder, beside | {path.name})


def identify(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a configuration names; the user's own if it names none."""
    for library, key in (("transformers", "model_type"), ("timm", "architecture"), ("diffusers", "_class_name")):
        name = config.get(key)
        if isinstance(name, str) and not explain_invalid_name(name):
            version = config.get(f"{library}_version", config.get(f"_{library}_version"))
            return Architecture(library, name, library_version=version if isinstance(version, str) else None)  # type: ignore[arg-type]
    return Architecture("torch", "unnamed")


def read_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """Return the tensors that the header of one ``.safetensors`` file of this machine lists.

    Raises:
        WeightsUnreadable: If it cannot be read, or has no header of this format.
    """
    folder = Folder(path.parent)
    return _parse_file(path.name, *folder.read(path.name, 0, FIRST_BYTES), folder)


def read_store(
    reference: str, store: Store, files: frozenset[str], transferred: Callable[[], int] = lambda: 0
) -> Weights:
    """Read the model in a folder that holds these files.

    Raises:
        LoradarError: As ``read_weights``.
    """
    _check_is_model(reference, store, files)
    config = read_json(store, CONFIG, reference) if CONFIG in files else {}
    name = _choose_file(reference, files)
    if name.endswith(GGUF_ENDING):
        header = _read_gguf(name, store)
        return Weights(reference, config, header.tensors, 1, 1, transferred(), gguf=header)
    if not name.endswith(INDEX_ENDING):
        tensors = _parse_file(name, *store.read(name, 0, FIRST_BYTES), store)
        return Weights(reference, config, tensors, 1, 1, transferred())
    content, size = store.read(name, 0, MOST_INDEX_BYTES)
    if size is not None and size > len(content):
        raise WeightsUnreadable(
            f"{name} of {reference} has {size} bytes; up to {MOST_INDEX_BYTES} are read.", file=name
        )
    index = parse_index(content, name)
    shards = choose_shards(index, store.most_shards)
    of_shard: dict[str, list[str]] = {}
    for tensor, file in index.files.items():
        of_shard.setdefault(file, []).append(tensor)
    parts = {shard: estimate_header(of_shard[shard]) for shard in shards}
    read = [
        tensor for shard, start, size in store.read_each(parts) for tensor in _parse_file(shard, start, size, store)
    ]
    found, assumed = complete(index, read)
    return Weights(reference, config, tuple(found), len(shards), len(of_shard), transferred(), tuple(assumed))


def _read_gguf(name: str, store: Store) -> GgufHeader:
    """Return the header of a file of llama.cpp, which is as long as that says."""
    sizes: list[int | None] = []

    def read_part(start: int, length: int) -> bytes:
        content, size = store.read(name, start, length)
        sizes.append(size)
        return content

    header = read_gguf(read_part, name)
    check_size(header, sizes[0], name)
    return header


def _parse_file(name: str, start: bytes, size: int | None, store: Store) -> tuple[StoredTensor, ...]:
    """Return the tensors of a file, given its first bytes; reads the rest of its header if it is longer."""
    end = LENGTH_BYTES + read_length(start, name)
    if len(start) < end:
        start += store.read(name, len(start), end - len(start))[0]
    if len(start) < end:
        raise WeightsUnreadable(f"{name} ends inside its header, after {len(start)} of {end} bytes.", file=name)
    return parse_header(start[LENGTH_BYTES:end], name, size)


def read_json(store: Store, name: str, reference: str) -> dict[str, Any]:
    """Return the content of a configuration.

    Raises:
        HubFailed: If the hub does not give it.
        WeightsUnreadable: If it is no JSON object, or too large.
    """
    content, size = store.read(name, 0, MOST_CONFIG_BYTES)
    if size is not None and size > len(content):
        message = f"{name} of {reference} has {size} bytes, more than {MOST_CONFIG_BYTES}: that is no configuration."
        raise WeightsUnreadable(message, file=name)
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WeightsUnreadable(f"{name} of {reference} is no JSON object.", file=name)
    return found


def _check_is_model(reference: str, store: Store, files: frozenset[str]) -> None:
    """Reject an adapter and a pipeline, whose models are elsewhere, with the way to them."""
    if ADAPTER_CONFIG in files and CONFIG not in files:
        adapter = read_json(store, ADAPTER_CONFIG, reference)
        base, method = str(adapter.get("base_model_name_or_path"))[:200], str(adapter.get("peft_type"))[:40]
        message = f"{reference} is an adapter ({method}) of {base!r}, no model. Scan its base instead."
        raise InvalidReference(message, reference=reference, base=base)
    if PIPELINE in files and CONFIG not in files:
        parts = read_json(store, PIPELINE, reference).items()
        models = [name[:80] for name, value in parts if isinstance(value, list) and "Model" in str(value[-1:])]
        message = (
            f"{reference} is a pipeline of several models. Name one: {quoted(f'{reference}/{n}' for n in models)}."
        )
        raise InvalidReference(message, reference=reference, models=models)


def _choose_file(reference: str, files: Iterable[str]) -> str:
    """Return the index of a model's weights, or their file if there is one alone."""
    files = sorted(files)
    for ending in (INDEX_ENDING, ENDING, GGUF_ENDING):
        found = [name for name in files if name.endswith(ending)]
        named = [f"{name}{ending}" for name in PREFERRED if f"{name}{ending}" in found]
        if named or len(found) == 1:
            return (named or found)[0]
        if found:
            message = (
                f"{reference} has several files of weights and no index: {quoted(found[:8])}. Give one: file:PATH."
            )
            raise WeightsUnreadable(message, files=found[:20])
    pickled = [name for name in files if name.endswith(PICKLED)]
    if pickled:
        message = f"{reference} has pickled weights alone ({pickled[0]}): opening them could run code. "
        raise WeightsUnreadable(f"{message}Save the model as safetensors.", files=pickled[:20])
    raise WeightsUnreadable(
        f"{reference} has no *{ENDING} and no *{GGUF_ENDING} file: nothing tells the shapes of its weights.",
        files=files[:20],
    )
