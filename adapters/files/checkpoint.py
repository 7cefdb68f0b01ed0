"""Adapter folders in PEFT's format: ``adapter_config.json`` beside ``adapter_model.safetensors``.

Older adapters have ``adapter_model.bin`` in its place, a pickle: torch reads tensors from it and runs nothing.
"""

import json
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError, serialize_file
from safetensors.torch import load, load_file, save_file

from ...errors import InvalidConfig
from ..config import AdapterConfig
from ..hub.transfer import CONFIG, PICKLE, WEIGHTS
from ..injection.apply import PREFIX
from ..peft_forms import read_config, unreadable

TensorSpec: Any = getattr(safetensors, "TensorSpec", None)  # older versions have none

PLAIN_DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in (torch.float32, torch.float16, torch.bfloat16)}
"""The usual dtypes of factors, with their names in safetensors."""
SMALL_FILE = 2**26
"""The size up to which a file is read at once, in half the time; its bytes are in memory twice meanwhile."""
PIECE = 2**22
"""The number of values that are looked through in one piece."""


def without_wrappers(key: str) -> str:
    """Return the key of a tensor without the names of wrappers around the model, or around a module in it.

    ``torch.compile`` puts ``_orig_mod`` into a path, ``DataParallel`` and DDP put ``module`` before it.
    """
    plain = key.replace("_orig_mod.", "").removeprefix("module.")
    return PREFIX + plain.removeprefix(PREFIX).removeprefix("module.") if plain.startswith(PREFIX) else plain


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], *, as_pickle: bool) -> None:
    """Write both files of an adapter, each complete or not at all; weights in the other format are removed.

    Args:
        folder: The folder.
        config: The content of the configuration.
        tensors: The tensors, by key.
        as_pickle: Whether to write ``adapter_model.bin``.

    Raises:
        InvalidConfig: If a tensor is on the meta device and has no values.
        AdapterUnreadable: If the folder cannot be written.
    """
    on_meta = [key for key, tensor in tensors.items() if tensor.is_meta]
    if on_meta:
        raise InvalidConfig(f"{on_meta[0]!r} is on the meta device and has no values. Give the model storage first.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
            name, other = (PICKLE, WEIGHTS) if as_pickle else (WEIGHTS, PICKLE)
            if as_pickle:
                torch.save(_own_storage(tensors), Path(staging, PICKLE))
            else:
                _write_tensors(_own_storage(tensors), Path(staging, WEIGHTS))
            Path(staging, CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            for file in (name, CONFIG):
                Path(staging, file).replace(folder / file)
            (folder / other).unlink(missing_ok=True)  # PEFT would prefer outdated safetensors
    except (OSError, SafetensorError) as error:
        raise unreadable(folder, f"cannot be written: {getattr(error, 'strerror', error)}") from error


def _write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write contiguous tensors that share no memory.

    ``save_file`` makes sure of both once more, and passes the addresses on through numpy, which takes three times as
    long. It is for what a plain address does not describe.
    """
    metadata = {"format": "pt"}
    is_plain = sys.byteorder == "little" and all(
        tensor.device.type == "cpu" and type(tensor) is torch.Tensor and tensor.dtype in PLAIN_DTYPES
        for tensor in tensors.values()
    )
    if not is_plain or TensorSpec is None:
        save_file(tensors, path, metadata=metadata)
        return
    specs = {
        key: TensorSpec(
            dtype=PLAIN_DTYPES[tensor.dtype],
            shape=tensor.shape,
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for key, tensor in tensors.items()
    }
    serialize_file(specs, path, metadata=metadata)


def _own_storage(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous tensors that share no memory: the format has no aliases."""
    seen: set[int] = set()
    own: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        storage = plain.untyped_storage().data_ptr()
        own[key] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return own


def read(
    folder: str | PathLike[str], config: AdapterConfig | None = None
) -> tuple[AdapterConfig, dict[str, torch.Tensor]]:
    """Read both files of an adapter completely, onto the CPU.

    Args:
        folder: The folder.
        config: A configuration to take instead of that in the folder.

    Raises:
        AdapterUnreadable: If one is missing, truncated or not in its format.
        InvalidConfig: If the configuration needs a feature that loradar lacks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise unreadable(folder, "is no folder. Give the folder that save_pretrained wrote, or a repo on the hub")
    return config or read_config(folder / CONFIG), _read_weights(folder / WEIGHTS)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        if not (pickled := path.with_name(PICKLE)).exists():
            raise unreadable(path, "is missing")
        path = pickled
    try:
        tensors: dict[str, torch.Tensor] = _unpickle(path) if path.name == PICKLE else _load(path)
    except (SafetensorError, OSError) as error:
        raise unreadable(path, f"is damaged or truncated ({error}). Save or download it again") from error
    floats = [tensor for tensor in tensors.values() if tensor.dtype in PLAIN_DTYPES]
    is_finite = len(floats) == len(tensors) and all(map(_is_finite, _join(floats)))
    for key, tensor in () if is_finite else tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise unreadable(path, f"holds values that are no numbers (NaN or infinite) in {key!r}. Save it again")
    return tensors


def _load(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file of safetensors."""
    is_small = path.stat().st_size <= SMALL_FILE
    tensors: dict[str, torch.Tensor] = load(path.read_bytes()) if is_small else load_file(path)
    return tensors


def _is_finite(values: torch.Tensor) -> bool:
    """Return whether all values are numbers: if one is none, so is the least or the greatest."""
    return all(map(math.isfinite, torch.aminmax(values)))


def _join(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the values of tensors, small ones in one piece: looking through each takes longer than reading the file."""
    part: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if part and size + tensor.numel() > PIECE:
            yield part[0] if len(part) == 1 else torch.cat(part)
            part, size = [], 0
        part += [tensor.flatten()] if tensor.numel() else []
        size += tensor.numel()
    if part:
        yield part[0] if len(part) == 1 else torch.cat(part)


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a pickle, in which anything else is rejected unread."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of protocols that torch itself does not write
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError):
        tensors = None  # each of them comes of a damaged file, and torch's text advises to run its code
    is_state = isinstance(tensors, dict) and all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in tensors.items()
    )
    if not is_state:
        why = "is damaged, or holds more than tensors, and a pickle of anything else runs code: it is not read"
        raise unreadable(path, why)
    return tensors  # type: ignore[no-any-return]
