"""Convert an adapter to the format of another tool, and make sure that it comes back bit for bit."""

import json
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...errors import InvalidConfig
from ...weights import LENGTH_BYTES, read_length
from ..config import LoraConfig
from ..files.checkpoint import write
from ..formats import Component, Factor, Lora, Target, find_components, read_lora, write_lora
from ..formats.joining import FIRST, SECOND
from ..formats.names import NAMES
from ..formats.writing import complete_config, name_peft
from ..hub.transfer import CONFIG
from ..injection.plan import strengths
from ..peft_forms import config_from_peft
from .stored import StoredAdapter, load_tensors, read_adapter

TARGETS: tuple[Target, ...] = ("peft", "diffusers", "kohya", "comfyui")
FILES = {"diffusers": "pytorch_lora_weights.safetensors", "kohya": "lora_kohya.safetensors"}
FILES |= {"comfyui": "lora_comfyui.safetensors"}


def convert(adapter: str | PathLike[str], to: str, out: str | PathLike[str], model: Any = None) -> tuple[Path, ...]:
    """Write an adapter in the format of another tool, and return the files.

    The layers correspond by the model's own: a name that could be two of them is rejected, and so is what the other
    format has no place for. The copy is read back and compared before it is written.

    Args:
        adapter: Its folder, its file, or ``hub:org/repo``; a folder may have one of PEFT's adapters for each model of a
            pipeline, such as ``unet`` and ``text_encoder``.
        to: ``peft``, ``diffusers``, ``kohya`` or ``comfyui``.
        out: The folder to write into, or a ``.safetensors`` file if the format is not PEFT's.
        model: The pipeline or the model, as a folder, ``hub:org/repo``, or an object; by default what the configuration
            names.

    Raises:
        InvalidConfig: If it cannot be converted without loss; names the layer and the reason.
        AdapterUnreadable: If there is no adapter, or it cannot be read.
        InvalidReference: If the model is none that can be found.
        HubFailed: If a hub does not give the files.
    """
    if to not in TARGETS:
        raise InvalidConfig(f"{to!r} is no format to convert to: {', '.join(TARGETS)}.", format=to)
    stored = _list_stored(adapter)
    target: Target = next(one for one in TARGETS if one == to)
    named = model or next((s.config.get("base_model_name_or_path") for s in stored.values()), None)
    if not named:
        message = "The layers of the model are needed to convert: give --model, the folder or repo of the pipeline."
        raise InvalidConfig(message, adapter=fspath(adapter))
    components = find_components(named)
    lora = read_any(stored, components)
    _reject_unknown(lora, fspath(adapter))
    for misfit in find_misfits(lora, components):
        raise InvalidConfig(f"{fspath(adapter)} is not converted: {misfit}: it is for another base.", misfit=misfit)
    folder = Path(out)
    if target == "peft":
        return _write_peft(lora, components, folder)
    tensors, metadata = write_lora(lora, components, target)
    tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    _check_way_back(lora, read_lora(tensors, metadata, components), target)
    file = folder if folder.suffix == ".safetensors" else folder / FILES[target]
    if file.exists():
        raise InvalidConfig(f"{file} is there already: give another place.", path=str(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata=metadata)
    return (file,)


def _list_stored(adapter: str | PathLike[str]) -> dict[str, StoredAdapter]:
    """Return the adapters of a folder: one alone, or one for each model of a pipeline, by its name."""
    path = Path(adapter)
    parts = [name for name in NAMES if (path / name / CONFIG).exists()]
    if parts and not (path / CONFIG).exists():
        return {name: read_adapter(path / name) for name in parts}
    return {"": read_adapter(adapter)}


def read_any(stored: Mapping[str, StoredAdapter], components: Mapping[str, Component]) -> Lora:
    """Return the factors of adapters in any format, by the layers of the models.

    Raises:
        InvalidConfig: If one holds what only PEFT's format has, or is for none of the models.
    """
    found = Lora()
    for name, one in stored.items():
        if one.format == "peft":
            component = _choose(name, one, components)
            _read_peft(one, component, found)
        elif one.format in TARGETS:
            read = read_lora(*_read_file(one), components)
            found.factors |= read.factors
            found.configs |= read.configs
            found.unknown |= read.unknown
        else:
            message = f"{one.file} is of no format that is converted ({one.format})"
            raise InvalidConfig(f"{message}: convert the adapter that it was made from.", format=one.format)
    return found


def _read_file(stored: StoredAdapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file, also of one that was sent."""
    tensors = load_tensors(stored)
    if stored.content is not None:
        header = stored.content[LENGTH_BYTES : LENGTH_BYTES + read_length(stored.content, stored.file.name)]
        return tensors, json.loads(header).get("__metadata__") or {}
    with safe_open(stored.file, "pt") as file:
        return tensors, file.metadata() or {}


def _choose(name: str, stored: StoredAdapter, components: Mapping[str, Component]) -> Component:
    """Return the model that an adapter of PEFT's is for: the one that has its layers."""
    if name in components:
        return components[name]
    paths = {factors.path for factors in stored.factors.values()}
    fitting = [part for part in components.values() if paths <= part.layers.keys()]
    if len(fitting) == 1:
        return fitting[0]
    if len(components) == 1:
        return next(iter(components.values()))
    which = f"{' and '.join(part.name for part in fitting)} have" if fitting else f"none of {', '.join(components)} has"
    message = f"The adapter names no model of the pipeline, and {which} all of its layers"
    raise InvalidConfig(f"{message}: give the folder of its model: --model.", adapter=str(stored.file))


def _read_peft(stored: StoredAdapter, component: Component, found: Lora) -> None:
    """Add the factors of an adapter in PEFT's format."""
    config = config_from_peft(stored.config)
    if not isinstance(config, LoraConfig):
        raise InvalidConfig(f"{stored.file} is of {config.method}: LoRA alone has a counterpart.", method=config.method)
    if stored.saved:
        key = next(iter(stored.saved))
        message = (
            f"{stored.file} holds tensors that are no factors, such as {key}, which other formats have no place for"
        )
        raise InvalidConfig(f"{message}.", key=key)
    tensors = load_tensors(stored)
    found.configs[component.name] = dict(stored.config)
    for factors in stored.factors.values():
        if factors.path not in component.layers or not factors.pair:
            found.unknown[factors.path] = f"no layer of {component.class_name} that takes factors has this name"
            continue
        if len({*factors.ranks}) > 1 or not all(factors.ranks):
            found.unknown[factors.path] = f"its factors have the ranks {' and '.join(map(str, factors.ranks))}"
            continue
        if "lora_embedding_A" in factors.tensors:
            found.unknown[factors.path] = "factors of embeddings have no counterpart"
            continue
        ((_, _, scaling),) = strengths(config, [factors.path])
        own = {name: tensors[key] for name, key in factors.keys.items()}
        found.factors.setdefault(component.name, {})[factors.path] = Factor(own, scaling * factors.ranks[0])


def _reject_unknown(lora: Lora, adapter: str) -> None:
    if lora.unknown:
        key, why = next(iter(lora.unknown.items()))
        message = (
            f"{adapter} is not converted: {len(lora.unknown)} names have no layer here, such as {key[:200]}: {why}"
        )
        way_out = "Give the folder of the whole pipeline (--model), or mend the names first (--fix)."
        raise InvalidConfig(f"{message}. {way_out}", key=key[:200], count=len(lora.unknown))
    if not lora.factors:
        raise InvalidConfig(f"{adapter} holds no factors.", adapter=adapter)


def find_misfits(lora: Lora, components: Mapping[str, Component]) -> Iterator[str]:
    """Yield, in words, the layers whose factors have other sides than the layer."""
    for name, factors in lora.factors.items():
        for path, factor in factors.items():
            layer = components[name].layers[path]
            first, second = factor.tensors[FIRST], factor.tensors[SECOND]
            inputs = (layer.in_features or 0) // (layer.groups if layer.kind.startswith("conv") else 1)
            if (first.shape[1], second.shape[0]) != (inputs, layer.out_features) or first.dim() != len(layer.shape):
                own, given = f"{inputs} -> {layer.out_features}", f"{[*first.shape]} and {[*second.shape]}"
                yield f"{path} of {name} is {own}, and its factors have {given}"


def _check_way_back(lora: Lora, again: Lora, to: Target) -> None:
    """Check that the factors come back bit for bit."""
    for name, factors in lora.factors.items():
        theirs = again.factors.get(name, {})
        for path, factor in factors.items():
            if path not in theirs or not factor.equals(theirs[path]):
                message = f"{path} does not come back from {to}'s format as it is, so it is not converted"
                raise InvalidConfig(f"{message}.", layer=path, format=to)


def _write_peft(lora: Lora, components: Mapping[str, Component], folder: Path) -> tuple[Path, ...]:
    """Write the adapter of each model, into folders of their own if there are several."""
    places = {name: folder if len(lora.factors) == 1 else folder / name for name in lora.factors}
    for place in places.values():
        if (place / CONFIG).exists():
            raise InvalidConfig(f"{place} holds an adapter already: give another folder.", path=str(place))
    for name, place in places.items():
        config = json.loads(json.dumps(complete_config(lora, components[name])))
        write(place, config, name_peft(lora.factors[name]), as_pickle=False)
    return tuple(places.values())
