"""Find the models that a file of LoRA may be for: of a pipeline each by its name, or one alone."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from ...discovery import list_layers, scan, scan_configured
from ...domain.layers import Layer
from ...domain.scans import Scan
from ...errors import InvalidReference, ScanFailed
from ...references import HubFolder, Reference
from ...references.local_paths import find_path, is_folder
from ...references.resolver import resolve
from ...validation.text import shorten
from ...weights import HubStore
from ...weights import read_json as read_stored
from ..peft_forms import read_json
from .names import DENOISERS, NAMES, Component, find_layout, prefix_all

CONFIG, PIPELINE = "config.json", "model_index.json"
ADAPTABLE = ("linear", "transposed_linear", "conv1d", "conv2d", "conv3d")


def find_components(model: Any) -> dict[str, Component]:
    """Return the models of a pipeline that may have adapters, by name; of a model alone, that one.

    Args:
        model: A pipeline or a model; the folder or ``hub:org/repo`` of one; the content of a model's ``config.json``;
            or an architecture.

    Raises:
        InvalidReference: If it is none of these.
        HubFailed: If a configuration cannot be read.
        ScanFailed: If no model builds from one.
    """
    found = {name: (cls, {x.path: x for x in every if x.kind in ADAPTABLE}) for name, cls, every in _list_models(model)}
    layouts = {name: find_layout(class_name, layers) for name, (class_name, layers) in found.items()}
    denoiser = next((layouts[name] for name in DENOISERS if name in found), None)
    return {
        name: Component(name, class_name, layers, layouts[name], prefix_all(name, layouts[name], denoiser))
        for name, (class_name, layers) in found.items()
    }


def _list_models(model: Any) -> Iterator[tuple[str, str, tuple[Layer, ...]]]:
    """Yield the name, the class and the layers of each model."""
    if isinstance(parts := getattr(model, "components", None), Mapping):  # a pipeline of diffusers
        modules = {name: part for name, part in parts.items() if name in NAMES and isinstance(part, nn.Module)}
        yield from ((name, _name_class(part), list_layers(part)) for name, part in modules.items())
        return
    if isinstance(model, nn.Module):
        class_name = _name_class(model)
        yield _guess_name("", class_name), class_name, list_layers(model)
        return
    for name, found in _list_scans(model):
        class_name = found.architecture.name
        yield _guess_name(name, class_name), class_name, found.layers


def _name_class(module: nn.Module) -> str:
    """Return the type of a model of transformers, or the class of one of diffusers."""
    config = getattr(module, "config", None)
    return str(getattr(config, "model_type", None) or type(module).__name__)


def _list_scans(model: Any) -> Iterator[tuple[str, Scan]]:
    """Yield the name and the scan of each model that a text or a configuration stands for."""
    if isinstance(model, Mapping):
        yield from _list_configured("the model of this configuration", "", {CONFIG: model})
        return
    text = str(model)
    path = find_path(text)
    if path and path.is_dir():
        yield from _list_configured(
            text, path.name, {file: path / file for file in _list_files() if (path / file).exists()}
        )
        return
    if isinstance(model, PathLike) or text.startswith("file:"):
        raise InvalidReference(f"{shorten(text)} is no folder. Give that of the pipeline or the model.", reference=text)
    if named := find_named(model):
        yield "", scan(named, method="names")
        return
    reference = text if text.startswith("hub:") else f"hub:{text}"
    Reference.parse(reference)
    folder = HubFolder.parse(reference)
    yield from _list_configured(text, folder.subfolder.rpartition("/")[2], _fetch(folder))


def find_named(model: Any) -> str | None:
    """Return the architecture that a text names, whose sizes are not known then; ``None`` for a folder or a repo."""
    if not isinstance(model, str) or model.startswith(("hub:", "file:")) or "/" in model or is_folder(model):
        return None
    return next((one.reference for one in resolve(model) if not one.is_guess), None)


def _list_files() -> list[str]:
    return [PIPELINE, CONFIG, *(f"{name}/{CONFIG}" for name in NAMES)]


def _fetch(folder: HubFolder) -> dict[str, dict[str, Any]]:
    """Return the configurations in a repo, by their place."""
    hub = HubStore(folder)
    store = hub.find_cached() or hub
    found: dict[str, dict[str, Any]] = {}
    first = store.list_files() & {PIPELINE, CONFIG}
    parts = [f"{name}/{CONFIG}" for name in NAMES] if PIPELINE in first else []
    listed = read_stored(store, PIPELINE, str(folder)) if parts else {}
    for file in [*first, *(part for part in parts if part.partition("/")[0] in listed)]:
        found[file] = read_stored(store, file, str(folder))
    return found


def _list_configured(text: str, name: str, files: Mapping[str, Any]) -> Iterator[tuple[str, Scan]]:
    """Yield the models that these configurations describe, each content or file by its place."""
    configs = {place: read_json(one) if isinstance(one, Path) else one for place, one in files.items()}
    if PIPELINE in configs:
        parts = {part: configs[f"{part}/{CONFIG}"] for part in NAMES if f"{part}/{CONFIG}" in configs}
    else:
        parts = {name: configs[CONFIG]} if CONFIG in configs else {}
    if not parts:
        message = f"{text} holds neither a {PIPELINE} with models nor a {CONFIG}."
        raise InvalidReference(f"{message} Give the folder of the pipeline or the model.", reference=text)
    for part, config in parts.items():
        found, why = scan_configured(config, "names")
        if found is None:
            raise ScanFailed(f"The layers of {text} are not known: {why}.")
        yield part, found


def _guess_name(name: str, class_name: str) -> str:
    """Return the name of a model in a pipeline: that of its folder, or the usual one of its class."""
    if name in NAMES:
        return name
    if class_name.startswith("UNet"):
        return "unet"
    return "transformer" if class_name[:1].isupper() else "text_encoder"  # transformers' types are in lower case
