"""Adapter folders in PEFT's format: ``adapter_config.json`` beside ``adapter_model.safetensors``."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...errors import AdapterUnreadable, InvalidConfig, TargetsNotFound
from ..config import AdapterConfig, config_from_peft
from ..injection.apply import PREFIX, Prepared
from ..injection.plan import Plan
from ..injection.sites import Survey

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MOST = 3


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write both files of an adapter, each complete or not at all.

    Raises:
        InvalidConfig: If a tensor is on meta: there is nothing to write.
        AdapterUnreadable: If the folder cannot be written.
    """
    on_meta = [key for key, tensor in tensors.items() if tensor.is_meta]
    if on_meta:
        raise InvalidConfig(f"{on_meta[0]!r} is on the meta device and has no values. Give the model storage first.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
            save_file(_own_storage(tensors), Path(staging, WEIGHTS), metadata={"format": "pt"})
            Path(staging, CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            for name in (WEIGHTS, CONFIG):
                Path(staging, name).replace(folder / name)
    except OSError as error:
        raise _unreadable(folder, f"cannot be written: {error.strerror}") from error


def read(folder: str | PathLike[str]) -> tuple[AdapterConfig, dict[str, torch.Tensor]]:
    """Read both files of an adapter, on the CPU, to the last byte.

    Raises:
        AdapterUnreadable: If one is missing, truncated or not what its name says.
        InvalidConfig: If the configuration asks for what loradar does not have.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise _unreadable(folder, "is no folder. Give the folder that save_pretrained wrote, or hub:org/repo")
    data = _read_config(folder / CONFIG)
    with naming(folder / CONFIG):
        config = config_from_peft(data)
    return config, _read_weights(folder / WEIGHTS)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say which file it is that something is wrong with.

    Raises:
        AdapterUnreadable: As raised inside, with the file named.
        InvalidConfig: As raised inside, with the file named.
    """
    try:
        yield
    except (AdapterUnreadable, InvalidConfig, TargetsNotFound) as error:
        if str(path) in error.message:
            raise
        raise type(error)(f"{path}: {error.message}", **error.details) from error


def fill(survey: Survey, prepared: Prepared, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy the content of an adapter file into an adapter that is not in the model yet.

    PEFT's files may also hold weights of the base model (trained biases, resized embeddings); those are copied last.

    Raises:
        AdapterUnreadable: If a tensor is missing, has another shape, or belongs to nothing; nothing is copied then.
    """
    wanted = prepared.state()
    check_complete(wanted, tensors)
    copy_into({**wanted, **_base_tensors(survey, tensors.keys() - wanted.keys())}, tensors)


def check_ranks(plan: Plan, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a rank that no tensor of the file has, before memory is asked for.

    Raises:
        AdapterUnreadable: Naming the layer and the rank.
    """
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for planned in plan.adapters:
        if tensors and planned.r > largest:
            message = (
                f"{planned.path!r} has rank {planned.r} by the configuration, and no tensor of the file is so large."
            )
            raise AdapterUnreadable(message, path=planned.path)


def check_complete(wanted: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse an adapter file that lacks some of the wanted keys.

    Raises:
        AdapterUnreadable: Naming them.
    """
    missing = [key for key in wanted if key not in tensors]
    if missing:
        raise AdapterUnreadable(f"The adapter lacks {_some(missing)}: it was made for other targets.", missing=missing)


def copy_into(wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into those of the same key, all or none.

    Raises:
        AdapterUnreadable: If one has another shape.
        InvalidConfig: If one would go to the meta device, which keeps no values.
    """
    for key, target in wanted.items():
        if target.is_meta:
            raise InvalidConfig(f"{key!r} would go to the meta device and be lost. Give the model storage first.")
        if target.is_floating_point() != tensors[key].is_floating_point():
            message = f"{key!r} holds {tensors[key].dtype} where this model needs {target.dtype}: the file is damaged."
            raise AdapterUnreadable(message, key=key)
        if target.shape != tensors[key].shape:
            shapes = f"{tuple(tensors[key].shape)} where this model needs {tuple(target.shape)}"
            raise AdapterUnreadable(f"{key!r} has shape {shapes}: the adapter is for another model.", key=key)
    with torch.no_grad():
        for key, target in wanted.items():
            target.copy_(tensors[key])


def _base_tensors(survey: Survey, keys: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the base model's tensors that these keys name."""
    found, unknown = {}, []
    for key in sorted(keys):
        path, _, name = key.removeprefix(PREFIX).rpartition(".")
        if path.endswith(".modules_to_save"):  # with bias="all" peft writes a saved module's bias twice
            continue
        site = survey.sites.get(path.removesuffix(".base_layer").removesuffix(".original_module"))
        own = {**site.module._parameters, **site.module._buffers} if site else {}  # noqa: SLF001
        if (tensor := own.get(name)) is None:
            unknown.append(key)
        else:
            found[key] = tensor
    if unknown:
        message = f"The adapter holds {_some(unknown)}, which this model and configuration have no place for."
        raise AdapterUnreadable(message, unexpected=unknown)
    return found


def _read_config(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unreadable(path, "is missing. Give the folder that save_pretrained wrote") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: broken JSON or broken UTF-8
        raise _unreadable(path, f"is not readable JSON ({error})") from error
    if not isinstance(data, dict):
        raise _unreadable(path, f"holds a {type(data).__name__}, not an adapter configuration")
    return data


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        pickled = path.with_suffix(".bin")
        hint = f"; {pickled.name} is a pickle and is not read. Save it again with peft" if pickled.exists() else ""
        raise _unreadable(path, f"is missing{hint}")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, f"is damaged or truncated ({error}). Save or download it again") from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _unreadable(path, f"holds values that are no numbers (NaN or infinite) in {key!r}. Save it again")
    return tensors


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


def _unreadable(path: Path, why: str) -> AdapterUnreadable:
    return AdapterUnreadable(f"{path} {why}.", path=str(path))


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - MOST} more" if len(keys) > MOST else ""
    return ", ".join(map(repr, keys[:MOST])) + more
