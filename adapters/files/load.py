"""Load adapter folders into a model: everything is read and checked before the model is touched."""

import functools
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ...discovery import read_attribute
from ...errors import AdapterUnreadable, InvalidConfig
from ...warn import warn
from ..config import AdapterConfig
from ..hub.transfer import WEIGHTS, locate
from ..injection.ambient import without_modes
from ..injection.apply import PREFIX, Prepared, build, file_state, layers_in
from ..injection.host_model import Survey
from ..injection.plan import make_plan
from ..injection.replication import replicated
from ..injection.statistics import statistics_in
from ..layers.dora import fill_magnitude
from ..layers.planned import PlannedAdapter
from ..layers.tokens import KEY
from ..peft_forms import naming
from .checkpoint import read, without_wrappers

RANK_DIMENSIONS = {"lora_A.weight": 0, "lora_B.weight": 1, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""The dimension of each factor that is the rank."""
VARIANT = (
    *("method", "use_dora", "lora_bias", "trainable_token_indices", "base_changed_by", "layer_replication"),
    *("variant", "velora_config", "monteclora_config", "use_bdlora"),
)
"""The fields that give an adapter its parts, and the weights that it acts on."""
STRENGTH = ("r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "feedforward_modules")
"""The fields that give the weights of these parts their meaning."""
SCALED = ("lora_B.weight", "lora_B.bias", "lora_embedding_B")
"""The tensors that an update is proportional to."""
MOST_KEYS = 3
"""Number of keys that an error lists."""


class SizeMismatch(AdapterUnreadable, RuntimeError):
    """A tensor of a file that has another size than in the model, for which torch raises a ``RuntimeError``."""


class Source(NamedTuple):
    """The source of a saved adapter.

    Attributes:
        folder: Its folder.
        config: The configuration to use instead of that in the folder.
        key_mapping: Regexes and their replacements, of which the first that matches changes a key of the file; those
            of the model if ``None``.
        autocast: Whether its tensors are float32 where the layers have half precision.
        ignores_sizes: Whether tensors whose sizes differ from those in the model are left out, with a warning.
    """

    folder: Path
    config: AdapterConfig | None = None
    key_mapping: Mapping[str, str] | None = None
    autocast: bool = True
    ignores_sizes: bool = False

    @classmethod
    def find(
        cls,
        model: nn.Module,
        model_id: str | PathLike[str],
        method: str,
        options: Mapping[str, Any],
        key_mapping: Mapping[str, str] | None = None,
    ) -> "Source":
        """Return the source that a call of ``from_pretrained`` or ``load_adapter`` names.

        Args:
            model: The model to load it into.
            model_id: The folder, or the repo on the hub.
            method: Name of the method, for messages.
            options: Its options.
            key_mapping: The renames of keys.

        Raises:
            InvalidConfig: If an option is unknown or cannot be honoured.
            HubFailed: If it cannot be downloaded.
        """
        given = dict(options)
        ignores_sizes = bool(given.pop("ignore_mismatched_sizes", False))
        if isinstance(devices := given.get("device_map"), Mapping) and _is_there(model, devices):
            del given["device_map"]
        return cls(locate(model_id, method, given), None, key_mapping, ignores_sizes=ignores_sizes)

    def read(self, model: nn.Module) -> tuple[AdapterConfig, dict[str, torch.Tensor]]:
        """Read both files, and rename the keys for a model."""
        config, tensors = read(self.folder, self.config)
        # Of a transformers model whose modules have other names than when its checkpoints were made.
        mapping = self.key_mapping or read_attribute(model, "_checkpoint_conversion_mapping")
        if not isinstance(mapping, Mapping) or not mapping:
            return config, tensors
        return config, {_rename(key, mapping): tensor for key, tensor in tensors.items()}


def _is_there(model: nn.Module, devices: Mapping[str, Any]) -> bool:
    """Return whether a model is already where a device map puts its parts."""
    try:
        places = [(f"{path}.".lstrip("."), torch.device(device)) for path, device in devices.items()]
    except (RuntimeError, TypeError):  # a disk, for example
        return False
    return all(
        tensor.device.type == device.type and device.index in (None, tensor.device.index)
        for name, tensor in model.named_parameters()
        for path, device in places
        if f"{name}.".startswith(path)
    )


def _rename(key: str, mapping: Mapping[str, str]) -> str:
    """Return a key of a file as the first pattern that matches changes it, as in PEFT."""
    plain = key.removeprefix(PREFIX)
    for pattern, replacement in mapping.items():
        renamed, count = re.subn(pattern, replacement, plain)
        if count:
            return key.removesuffix(plain) + renamed
    return key


@without_modes()
def load(survey: Survey, source: Source, adapter_name: str, *, is_trainable: bool) -> Prepared:
    """Build a saved adapter for a model, which stays as it is.

    Raises:
        AdapterUnreadable: If a file is missing, damaged or does not fit.
        TargetsNotFound: If the targets match nothing in this model.
        InvalidConfig: If the adapter needs a feature that loradar lacks, or does not fit the model.
    """
    config, tensors = source.read(survey.model)
    with naming(source.folder / WEIGHTS), replicated(survey, config) as replication:
        plan = make_plan(survey, replace(config, inference_mode=not is_trainable))
        _check_ranks(plan.adapters, tensors)
        prepared = build(survey, plan, adapter_name, autocast=source.autocast)
        for planned in plan.adapters:
            if planned.tied_to:  # a file that holds the embeddings too repeats the rows
                tensors.pop(f"{PREFIX}{planned.path}.{KEY}", None)
        wanted = prepared.state()
        tensors = _rename_wrapped(tensors, wanted)
        _check_complete(wanted, tensors)
        statistics = _take_statistics(survey, tensors, wanted)
        targets = {**wanted, **_base_tensors(survey, tensors.keys() - wanted.keys())}
        misfits = [key for key in targets if source.ignores_sizes and targets[key].shape != tensors[key].shape]
        if misfits:
            prepared.initialise(survey)
            warn(f"{_some(misfits)} of {source.folder} has another size in this model, and keeps its first values.")
        _copy({key: targets[key] for key in targets.keys() - {*misfits}}, tensors)
    if not is_trainable:
        for tensor in wanted.values():
            tensor.requires_grad = False
    own = prepared.config if source.config is None else source.config.become(prepared.config)
    return replace(prepared, config=own, statistics=statistics, replication=replication, is_frozen=not is_trainable)


def _check_ranks(adapters: Iterable[PlannedAdapter], tensors: Mapping[str, torch.Tensor]) -> None:
    """Reject a rank above every size in the file: memory would be allocated for it."""
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for planned in adapters:
        if tensors and planned.r > largest:
            message = f"{planned.path!r} has rank {planned.r} by the configuration"
            raise AdapterUnreadable(f"{message}, and no tensor of the file is so large.", path=planned.path)


def hotswap(survey: Survey, folder: Path, adapter_name: str, current: AdapterConfig) -> dict[str, torch.Tensor]:
    """Copy the weights of the adapter in ``folder`` over those of an adapter in the model; see ``PeftModel``.

    Returns:
        The running statistics of norms in its file.

    Raises:
        AdapterUnreadable: If it does not fit; nothing is changed.
        InvalidConfig: If the methods differ, or the adapter is merged.
    """
    config, tensors = read(folder)
    with naming(folder / WEIGHTS):
        _check_same(VARIANT, config, current, adapter_name)
        layers = [layer for _, layer in layers_in(survey) if adapter_name in layer.adapters()]
        uses_base = getattr(config, "use_dora", False)  # whose norms are those of the unmerged weight
        if any(adapter_name in layer.merged_adapters or (layer.merged and uses_base) for layer in layers):
            raise InvalidConfig(f"{adapter_name!r} is merged: call unmerge_adapter first.", adapter_name=adapter_name)
        wanted = file_state(survey, adapter_name)
        tensors = _rename_wrapped(tensors, wanted)
        statistics = _take_statistics(survey, tensors, wanted)
        if extra := sorted(tensors.keys() - wanted.keys()):
            message = f"The adapter holds {extra[0]!r}, which {adapter_name!r} has no place for."
            raise AdapterUnreadable(message, key=extra[0])
        new = {planned.location: planned for planned in make_plan(survey, config).adapters}
        for layer in layers:
            planned = layer.planned[adapter_name]
            for name in layer.adapter_state(adapter_name):
                key = f"{PREFIX}{planned.location}.{name}"
                tensors[key] = _fit_to(key, name, tensors, wanted[key].shape, (new.get(planned.location), planned))
        _check_complete(wanted, tensors)
        _copy(wanted, tensors)
        for layer in layers:
            if layer.planned[adapter_name].location not in new:
                fill_magnitude(layer.parts(adapter_name), layer.base(), layer.planned[adapter_name])
    return statistics


def _fit_to(
    key: str,
    name: str,
    tensors: Mapping[str, torch.Tensor],
    shape: torch.Size,
    swap: tuple[PlannedAdapter | None, PlannedAdapter],
) -> torch.Tensor:
    """Return a tensor of a file for an adapter in the model: of its rank, and for its scaling, which the layer keeps.

    Args:
        key: The key in the file.
        name: The name of the tensor in its layer.
        tensors: The tensors of the file.
        shape: The shape in the model.
        swap: The plans of the new adapter on the layer, ``None`` if it leaves the layer out, and of the one there.

    Raises:
        AdapterUnreadable: If the file lacks the tensor, or it does not fit.
    """
    new, old = swap
    if new is None:
        return torch.zeros(shape)
    _check_complete([key], tensors)
    tensor = _widened(key, tensors[key], shape, RANK_DIMENSIONS.get(name), (new.r, old.r))
    return tensor * (new.scaling / old.scaling) if name in SCALED else tensor


def _check_same(names: Iterable[str], config: AdapterConfig, current: AdapterConfig, adapter_name: str) -> None:
    """Reject a file whose configuration differs from that of an adapter in the model in one of these fields."""
    for name in names:
        if (value := getattr(config, name, None)) != (known := getattr(current, name, None)):
            message = f"it has {name}={value!r}, and {adapter_name!r} has {known!r}"
            raise InvalidConfig(f"{message}: load it under another name.", adapter_name=adapter_name)


def _rename_wrapped(tensors: dict[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a file's tensors under the wanted keys that differ from theirs by the names of wrappers alone."""
    if tensors.keys() == wanted.keys():
        return tensors
    known = {without_wrappers(key): key for key in wanted}
    own = {*known.values()}
    return {key if key in own else known.get(without_wrappers(key), key): each for key, each in tensors.items()}


def _take_statistics(
    survey: Survey, tensors: dict[str, torch.Tensor], wanted: Container[str]
) -> dict[str, torch.Tensor]:
    """Take the running statistics of the base model's norms out of a file's tensors, and return them.

    Raises:
        AdapterUnreadable: If one does not fit the model's.
    """
    norms = {key: tensor for key, tensor in statistics_in(survey).items() if key in tensors and key not in wanted}
    _check_fit(norms, tensors)
    return {key: tensors.pop(key) for key in norms}


def _widened(
    key: str, tensor: torch.Tensor, shape: torch.Size, dimension: int | None, ranks: tuple[int, int]
) -> torch.Tensor:
    """Fill a factor up with zeros, from the rank in its configuration to that of the factor in the model.

    Raises:
        AdapterUnreadable: If its shape has another rank than that, or it is the higher one.
    """
    new, old = ranks
    if dimension is None or new == old or tensor.ndim != len(shape):
        return tensor
    expected = shape[dimension] // old * new
    if tensor.shape[dimension] != expected or new > old:
        there = f"rank {old} is there, {new} in the configuration, {tensor.shape[dimension]} in the file"
        raise AdapterUnreadable(f"{key!r} cannot be swapped in: {there}. Load it as another adapter.", key=key)
    if dimension:  # B holds the experts of each rank together
        return torch.cat([tensor, tensor.new_zeros(*tensor.shape[:1], shape[1] - expected, *tensor.shape[2:])], 1)
    stacked = tensor.view(-1, new, *tensor.shape[1:])  # A holds the ranks of each expert together
    return torch.cat([stacked, stacked.new_zeros(len(stacked), old - new, *tensor.shape[1:])], 1).flatten(0, 1)


def reread(
    survey: Survey, source: Source, adapter_name: str, wanted: Mapping[str, torch.Tensor], current: AdapterConfig
) -> dict[str, torch.Tensor]:
    """Copy the weights of a saved adapter into ``wanted``, the tensors of an adapter like it, and into the base model.

    Returns:
        The running statistics of norms in its file.

    Raises:
        AdapterUnreadable: If a file is missing or damaged, or has other tensors; nothing is changed.
        InvalidConfig: If its rank, alpha or method differs, so that its weights would mean another update.
    """
    config, tensors = source.read(survey.model)
    with naming(source.folder / WEIGHTS):
        _check_same((*VARIANT, *STRENGTH), config, current, adapter_name)
        tensors = _rename_wrapped(tensors, wanted)
        _check_complete(wanted, tensors)
        statistics = _take_statistics(survey, tensors, wanted)
        _copy({**wanted, **_base_tensors(survey, tensors.keys() - wanted.keys())}, tensors)
    return statistics


def _check_complete(wanted: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Reject an adapter file that lacks some of the wanted keys.

    Raises:
        AdapterUnreadable: Naming them.
    """
    missing = [key for key in wanted if key not in tensors]
    if missing:
        raise AdapterUnreadable(f"The adapter lacks {_some(missing)}: it was made for other targets.", missing=missing)


def _copy(wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into those of the same key, all or none.

    Raises:
        AdapterUnreadable: As ``_check_fit``.
        InvalidConfig: As ``_check_fit``.
    """
    _check_fit(wanted, tensors)
    with torch.no_grad():
        for key, target in wanted.items():
            target.copy_(tensors[key])


def _check_fit(wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Reject tensors that cannot be copied into those of the same key.

    Raises:
        AdapterUnreadable: If a shape or a kind of dtype differs.
        InvalidConfig: If a target is on the meta device, which stores no values.
    """
    for key, target in wanted.items():
        if target.is_meta:
            raise InvalidConfig(f"{key!r} would go to the meta device and be lost. Give the model storage first.")
        if target.is_floating_point() != tensors[key].is_floating_point():
            message = f"{key!r} holds {tensors[key].dtype} where this model needs {target.dtype}: the file is damaged."
            raise AdapterUnreadable(message, key=key)
        if target.shape != tensors[key].shape:
            shapes = f"{tuple(tensors[key].shape)} where this model needs {tuple(target.shape)}"
            why = "the adapter is for another model"
            if ".lora_" not in key and tensors[key].shape[1:] == target.shape[1:]:  # a vocabulary
                way_out = f"call resize_token_embeddings({len(tensors[key])}) on the model first"
                why = f"if the vocabulary was resized, {way_out}"
            raise SizeMismatch(f"size mismatch: {key!r} has shape {shapes}: {why}.", key=key)


def _base_tensors(survey: Survey, keys: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the base model's tensors for these keys: PEFT's files may hold trained biases and resized embeddings.

    Raises:
        AdapterUnreadable: Naming the keys that the model has no tensor for.
    """
    state, unknown = {}, []
    for key in sorted(keys):
        path, _, name = key.removeprefix(PREFIX).rpartition(".")
        if path.endswith(".modules_to_save"):  # with bias="all" peft writes a saved module's bias twice
            continue
        inside = (".base_layer", ".token_adapter", ".original_module")
        site = survey.sites.get(functools.reduce(str.removesuffix, inside, path))
        own = {**site.module._parameters, **site.module._buffers} if site else {}  # noqa: SLF001
        if (tensor := own.get(name)) is None:
            unknown.append(key)
        else:
            state[key] = tensor
    if unknown:
        message = f"The adapter holds {_some(unknown)}, which this model and configuration have no place for."
        raise AdapterUnreadable(message, unexpected=unknown)
    return state


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return ", ".join(map(repr, keys[:MOST_KEYS])) + more
