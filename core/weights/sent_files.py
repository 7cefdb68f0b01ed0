"""Read a model from parts of its files that were sent: a configuration, headers of weights, an index; or pasted JSON.

The content of a file tells its kind, because its name may have been changed. Of a file of weights the header is enough;
what follows it is not read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InvalidReference, WeightsUnreadable
from ..validation.text import shorten
from .gguf import MAGIC, GgufHeader, read_gguf
from .index import Index, complete, parse_index
from .safetensors import LENGTH_BYTES, MOST_HEADER_BYTES, StoredTensor, Twice, parse_header, read_length, unique

SentKind = Literal["config", "header", "index", "gguf"]

MOST_FILES = 64
"""Files of one model: its configuration, its index, and the headers of its shards."""

MOST_CONFIG_BYTES = 1 << 20
ADAPTER_KEY = "peft_type"

_FOREIGN = (
    (b"\x1f\x8b", "is compressed (gzip)", "Unpack it and send what is inside"),
    (b"BZh", "is compressed (bzip2)", "Unpack it and send what is inside"),
    (b"\xfd7zXZ", "is compressed (xz)", "Unpack it and send what is inside"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstandard)", "Unpack it and send what is inside"),
    (b"PK\x03\x04", "is a zip archive, as PyTorch saves weights", "Opening it could run code: save it as safetensors"),
    (b"\x80", "is a pickle", "Opening it could run code: save the model as safetensors"),
    (b"\x89HDF", "is an HDF5 file", "Save the model as safetensors"),
)
"""The first bytes of files that are often sent by mistake, what they are, and the way out."""

_WANTED = "Send a config.json, an *.index.json, or the start of a .safetensors or .gguf file"


@dataclass(frozen=True)
class SentModel:
    """The files sent of one model.

    Attributes:
        names: The names of the files, as they were sent.
        config: Its ``config.json``; empty without one.
        tensors: Its tensors; empty without a header.
        index: Its index, if one was sent.
        headers: Number of headers that were sent.
        assumed: What was not read, in words.
        gguf: The header, if a file is one of llama.cpp.
    """

    names: tuple[str, ...]
    config: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...] = ()
    index: Index | None = None
    headers: int = 0
    assumed: tuple[str, ...] = ()
    gguf: GgufHeader | None = None


def read_sent(files: Mapping[str, bytes]) -> SentModel:
    """Return the model that sent files describe.

    Args:
        files: Their content, or as much of it as was sent, by name.

    Raises:
        WeightsUnreadable: If one is of no kind that is read, or they do not belong together; names the file.
        InvalidReference: If one configures an adapter or a pipeline, and no model.
    """
    if not 1 <= len(files) <= MOST_FILES:
        raise WeightsUnreadable(f"{len(files)} files were sent; 1 to {MOST_FILES} are read. {_WANTED}.")
    by_kind = _sort(files)
    configs, indices, headers = by_kind["config"], by_kind["index"], by_kind["header"]
    config = _read_config(files[configs[0]], configs[0]) if configs else {}
    if by_kind["gguf"]:
        return _read_gguf(files, by_kind, config)
    index = parse_index(files[indices[0]], indices[0]) if indices else None
    tensors = _unique([tensor for name in headers for tensor in _read_header(files[name], name)])
    assumed: list[str] = []
    if index and tensors:
        tensors, assumed = _complete(index, tensors, files)
    return SentModel(tuple(files), config, tuple(tensors), index, len(headers), tuple(assumed))


def _sort(files: Mapping[str, bytes]) -> dict[SentKind, list[str]]:
    """Return the names of files by kind.

    Raises:
        WeightsUnreadable: If there are two of a kind of which a model has one.
    """
    by_kind: dict[SentKind, list[str]] = {"config": [], "header": [], "index": [], "gguf": []}
    for name, content in files.items():
        by_kind[find_kind(content, name)].append(name)
    for kind, names in by_kind.items():
        if len(names) > 1 and kind != "header":
            message = (
                f"{' and '.join(map(shorten, names[:4]))} were sent together, each of them alone describes a model."
            )
            raise WeightsUnreadable(f"{message} Send one.", files=names[:MOST_FILES])
    return by_kind


def _complete(
    index: Index, tensors: list[StoredTensor], files: Mapping[str, bytes]
) -> tuple[list[StoredTensor], list[str]]:
    """Return all tensors of an index, and the files that were not read.

    Raises:
        WeightsUnreadable: If the shape of one follows from none that was sent.
    """
    try:
        return complete(index, tensors)
    except WeightsUnreadable as error:
        if (file := error.details["file"]) in files:
            raise
        message = f"The index names {shorten(file)}, which has weights unlike all that were sent. Send its header too."
        raise WeightsUnreadable(message, file=file) from None


def find_kind(content: bytes, name: str) -> SentKind:
    """Return the kind of a file by its content.

    Raises:
        WeightsUnreadable: If it is of none that is read.
        InvalidReference: If it configures an adapter or a pipeline, and no model.
    """
    if content.startswith(MAGIC):
        return "gguf"
    start = content[LENGTH_BYTES : LENGTH_BYTES + 1]
    if start == b"{" and 2 <= int.from_bytes(content[:LENGTH_BYTES], "little") <= MOST_HEADER_BYTES:  # noqa: PLR2004
        return "header"
    for magic, what, way_out in _FOREIGN:
        if content.startswith(magic):
            raise WeightsUnreadable(f"{shorten(name)} {what}. {way_out}.", file=name)
    return _find_kind_of_json(_parse(content, name), name)


def _find_kind_of_json(found: Mapping[str, Any], name: str) -> SentKind:
    if isinstance(found.get("weight_map"), Mapping):
        return "index"
    if ADAPTER_KEY in found and "model_type" not in found:
        base = shorten(str(found.get("base_model_name_or_path")))
        message = f"{shorten(name)} configures an adapter ({shorten(str(found[ADAPTER_KEY]))}) of {base}, no model."
        raise InvalidReference(f"{message} Send the config.json of its base.", file=name)
    if str(found.get("_class_name", "")).endswith("Pipeline"):
        message = f"{shorten(name)} lists the parts of a pipeline. Send the config.json of one of them, such as unet/."
        raise InvalidReference(message, file=name)
    entries = [value for key, value in found.items() if key != "__metadata__"]
    if entries and all(isinstance(value, Mapping) and "data_offsets" in value for value in entries):
        return "header"
    return "config"


def _parse(content: bytes, name: str) -> Mapping[str, Any]:
    """Return the JSON object in a file.

    Raises:
        WeightsUnreadable: If it holds none; names the position of the fault.
    """
    if not content.strip():
        raise WeightsUnreadable(f"{shorten(name)} is empty. {_WANTED}.", file=name)
    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique)
    except Twice as error:
        message = f"{shorten(name)} has the name {shorten(str(error))} twice in one object. Leave one of them."
        raise WeightsUnreadable(message, file=name) from None
    except RecursionError:
        raise WeightsUnreadable(f"{shorten(name)} is nested too deeply to be read. {_WANTED}.", file=name) from None
    except json.JSONDecodeError as error:
        message = f"{shorten(name)} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}. {_WANTED}."
        raise WeightsUnreadable(message, file=name, line=error.lineno, column=error.colno) from None
    except UnicodeDecodeError:
        message = f"{shorten(name)} is neither text nor of a kind that is read; it begins with {content[:8].hex(' ')}."
        raise WeightsUnreadable(f"{message} {_WANTED}.", file=name) from None
    except ValueError as error:  # such as a number of thousands of digits
        raise WeightsUnreadable(f"{shorten(name)} holds a value that cannot be read: {error}.", file=name) from None
    if not isinstance(found, dict):
        message = f"{shorten(name)} holds a JSON {type(found).__name__}, not an object in braces. {_WANTED}."
        raise WeightsUnreadable(message, file=name)
    return found


def _read_config(content: bytes, name: str) -> Mapping[str, Any]:
    if len(content) > MOST_CONFIG_BYTES:
        message = f"{shorten(name)} has {len(content)} bytes, more than {MOST_CONFIG_BYTES}: that is no configuration."
        raise WeightsUnreadable(message, file=name)
    return _parse(content, name)


def _read_header(content: bytes, name: str) -> tuple[StoredTensor, ...]:
    """Return the tensors of a header, which is the start of a file, or its JSON alone."""
    if content[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        return parse_header(content, name)
    end = LENGTH_BYTES + read_length(content, name)
    if len(content) < end:
        message = (
            f"{shorten(name)} ends inside its header, after {len(content)} of {end} bytes. Send all of the header."
        )
        raise WeightsUnreadable(message, file=name)
    return parse_header(content[LENGTH_BYTES:end], name)


def _read_gguf(
    files: Mapping[str, bytes], by_kind: Mapping[SentKind, list[str]], config: Mapping[str, Any]
) -> SentModel:
    beside = [*by_kind["header"], *by_kind["index"]]
    if beside:
        message = f"{shorten(beside[0])} and {shorten(by_kind['gguf'][0])} were sent together: two forms of one model."
        raise WeightsUnreadable(f"{message} Send one.", files=list(files))
    (name,) = by_kind["gguf"]
    header = read_gguf(lambda start, length: files[name][start : start + length], name)
    return SentModel(tuple(files), config, header.tensors, headers=1, gguf=header)


def _unique(tensors: list[StoredTensor]) -> list[StoredTensor]:
    """Return tensors of several files.

    Raises:
        WeightsUnreadable: If two of them have one name.
    """
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            message = f"Two of the files have the tensor {shorten(tensor.name)}: they are not of one model."
            raise WeightsUnreadable(f"{message} Send the files of one.", tensor=tensor.name[:200])
        seen.add(tensor.name)
    return tensors
