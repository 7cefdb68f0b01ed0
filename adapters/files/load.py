"""From an adapter folder to a model: read and check everything, and only then touch the model."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from ...errors import AdapterUnreadable, InvalidConfig
from ..config import AdapterConfig
from ..hub.location import is_on_hub
from ..hub.transfer import fetch
from ..injection.apply import PREFIX, Prepared, file_state, layers_in
from ..injection.inject import plan_for, prepare, settle
from ..injection.model_checks import check_not_adapted
from ..injection.sites import Survey, survey_model
from ..model import PeftModel
from .checkpoint import WEIGHTS, check_complete, copy_into, naming, read

RANK_DIMENSIONS = {"lora_A.weight": 0, "lora_B.weight": 1, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""Which dimension of a factor is the rank."""


def load(
    model: nn.Module, folder: str | PathLike[str], adapter_name: str = "default", *, is_trainable: bool
) -> PeftModel:
    """Put the adapter in ``folder``, or on the hub under ``hub:org/repo``, into ``model``, in place.

    Raises:
        HubFailed: If it cannot be had from the hub; the model is unchanged.
        AdapterUnreadable: If a file is missing, damaged or does not fit; the model is unchanged.
        InvalidConfig: If the adapter uses what loradar does not have, or the model has adapters; it is unchanged.
    """
    survey = survey_model(model)
    check_not_adapted(survey)
    adapted = PeftModel(survey, read_for(survey, folder, adapter_name, is_trainable=is_trainable))
    return adapted if is_trainable else adapted.eval()


def read_for(survey: Survey, folder: str | PathLike[str], adapter_name: str, *, is_trainable: bool) -> Prepared:
    """Return the adapter in ``folder``, built for a model and filled.

    Raises:
        AdapterUnreadable: As ``load``.
        InvalidConfig: As ``load``.
    """
    folder = _local(folder)
    config, tensors = read(folder)
    with naming(folder / WEIGHTS):
        return prepare(survey, replace(config, inference_mode=not is_trainable), adapter_name, tensors=tensors)


def hotswap(survey: Survey, folder: str | PathLike[str], adapter_name: str, current: AdapterConfig) -> None:
    """Copy the weights of the adapter in ``folder`` over those of one in the model; see ``PeftModel``.

    Raises:
        AdapterUnreadable: If it does not fit; nothing is changed.
        InvalidConfig: If the methods differ, or the adapter is merged.
    """
    folder = _local(folder)
    config, tensors = read(folder)
    with naming(folder / WEIGHTS):
        _swap(survey, adapter_name, current, config, tensors)


def _swap(
    survey: Survey, adapter_name: str, current: AdapterConfig, config: AdapterConfig, tensors: dict[str, torch.Tensor]
) -> None:
    if config.peft_type != current.peft_type:
        message = f"it holds {config.peft_type}, and {adapter_name!r} is {current.peft_type}: load it beside instead."
        raise InvalidConfig(message, adapter_name=adapter_name)
    layers = [layer for _, layer in layers_in(survey) if adapter_name in layer.adapters()]
    if any(adapter_name in layer.merged_adapters for layer in layers):
        raise InvalidConfig(f"{adapter_name!r} is merged: call unmerge_adapter first.", adapter_name=adapter_name)
    wanted = file_state(survey, adapter_name)
    if extra := sorted(tensors.keys() - wanted.keys()):
        raise _no_place(extra[0], adapter_name)
    new = {planned.location: planned for planned in plan_for(survey, settle(config, survey)).adapters}
    for layer in layers:
        planned = layer.planned[adapter_name]
        for name in layer.adapter_state(adapter_name):
            key = f"{PREFIX}{planned.location}.{name}"
            if planned.location not in new:  # the layer is no target of the new one
                tensors[key] = torch.zeros(wanted[key].shape)
                continue
            check_complete([key], tensors)
            ranks = new[planned.location].r, planned.r
            tensors[key] = _widened(key, tensors[key], wanted[key].shape, RANK_DIMENSIONS.get(name), ranks)
            if name in ("lora_B.weight", "lora_embedding_B"):  # what the scaling was, the factor is now
                tensors[key] = tensors[key] * (new[planned.location].scaling / planned.scaling)
    check_complete(wanted, tensors)
    copy_into(wanted, tensors)


def reread(
    folder: str | PathLike[str], adapter_name: str, wanted: Mapping[str, torch.Tensor], current: AdapterConfig
) -> None:
    """Copy the weights of the adapter in ``folder`` into ``wanted``, the tensors of one like it.

    Raises:
        AdapterUnreadable: If a file is missing or damaged, or has other tensors; nothing is changed.
        InvalidConfig: If it is not as strong: its weights would mean something else here.
    """
    folder = _local(folder)
    config, tensors = read(folder)
    with naming(folder / WEIGHTS):
        _fill_again(adapter_name, wanted, current, config, tensors)


def _fill_again(
    adapter_name: str,
    wanted: Mapping[str, torch.Tensor],
    current: AdapterConfig,
    config: AdapterConfig,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    strength = ("peft_type", "r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "feedforward_modules")
    for name in strength:
        if (value := getattr(config, name, None)) != (known := getattr(current, name, None)):
            message = f"it has {name}={value!r}, and {adapter_name!r} has {known!r}"
            raise InvalidConfig(f"{message}: load it under another name.", adapter_name=adapter_name)
    check_complete(wanted, tensors)
    if extra := sorted(tensors.keys() - wanted.keys()):
        raise _no_place(extra[0], adapter_name)
    copy_into(wanted, tensors)


def _local(folder: str | PathLike[str]) -> Path:
    """Return a folder of this machine, downloaded if it is on the hub."""
    return fetch(str(folder)) if is_on_hub(folder) else Path(folder)


def _no_place(key: str, adapter_name: str) -> AdapterUnreadable:
    return AdapterUnreadable(f"The adapter holds {key!r}, which {adapter_name!r} has no place for.", key=key)


def _widened(
    key: str, tensor: torch.Tensor, shape: torch.Size, dimension: int | None, ranks: tuple[int, int]
) -> torch.Tensor:
    """Fill a factor up with zeros, from the rank that it has by its configuration to the one that is there.

    Raises:
        AdapterUnreadable: If it has another rank than that, or one higher than what is there.
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
