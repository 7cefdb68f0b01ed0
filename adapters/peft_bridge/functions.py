"""PEFT's functions on models: adapters without a wrapper, and PEFT's own functions, which work on loradar's models.

The second need PEFT installed: they check ``isinstance`` and read attributes, for which see ``layers/as_peft.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import nn

from ...errors import InvalidConfig
from ...extras import require
from ..config import AdapterConfig, LoraConfig
from ..entry import get_peft_model
from ..files.checkpoint import without_wrappers
from ..injection.apply import PREFIX

OWNER = "_loradar_adapters"
"""The attribute of a model by which a further adapter finds the first."""
FACTORS = ("lora_A", "lora_embedding_A", "ia3_l")
"""The names in a state dict that follow the path of an adapted layer."""
HOMES = {
    "get_layer_status": "peft.peft_model",
    "get_model_status": "peft.peft_model",
    "get_peft_model_state_dict": "peft.utils.save_and_load",
    "hotswap_adapter": "peft.utils.hotswap",
    "rescale_adapter_scale": "peft.helpers",
    "set_peft_model_state_dict": "peft.utils.save_and_load",
}
"""The modules of PEFT's functions."""


def __getattr__(name: str) -> Any:
    """Return PEFT's function of a name (PEP 562).

    Raises:
        MissingExtra: If PEFT is not installed.
    """
    if name not in HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    require("peft", "peft")
    return getattr(import_module(HOMES[name]), name)


def inject_adapter_in_model(
    peft_config: AdapterConfig,
    model: nn.Module,
    adapter_name: str = "default",
    low_cpu_mem_usage: bool = False,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Put an adapter into ``model``, in place, and return the model itself, without a wrapper around it.

    As in PEFT, a further call adds and activates a further adapter, ``model.peft_config`` holds the configurations, and
    the adapter has the dtypes of the layers: half precision too (``get_peft_model`` makes it float32).
    transformers' ``set_adapter``, ``disable_adapters``, ``save_pretrained`` and the like work on the model.

    Args:
        peft_config: The configuration.
        model: Any module.
        adapter_name: Key of the adapter in the state dict.
        low_cpu_mem_usage: Whether to leave the adapter on the meta device, until a state dict is assigned; modules that
            it trains in full have the values of the model.
        state_dict: The state dict of an adapter, whose keys name the layers instead of the configuration.

    Raises:
        InvalidConfig: As ``get_peft_model``; or if the state dict holds no adapter.
        TargetsNotFound: As ``get_peft_model``.
    """
    if state_dict is not None:
        peft_config = _with_targets_of(state_dict, peft_config)
    storage: dict[str, Any] = {"low_cpu_mem_usage": low_cpu_mem_usage, "autocast_adapter_dtype": False}
    owner: Any = getattr(model, "__dict__", {}).get(OWNER)  # of a name or None, rejected below
    if owner is None:
        owner = get_peft_model(model, peft_config, adapter_name, **storage)
        model.__dict__.update({OWNER: owner, "peft_config": owner.peft_config})  # past nn.Module: no child of its own
        if "_hf_peft_config_loaded" in dir(model):  # of transformers, which asks it before it switches adapters
            model.__dict__["_hf_peft_config_loaded"] = True
    else:
        owner.add_adapter(adapter_name, peft_config, **storage)
        owner.set_adapter(adapter_name)
    return model


def _with_targets_of(state_dict: Mapping[str, torch.Tensor], config: AdapterConfig) -> AdapterConfig:
    """Return a configuration whose targets are the layers that the keys of an adapter's state dict name."""
    keys = (without_wrappers(key).removeprefix(PREFIX) for key in state_dict)
    found = {key.partition(f".{name}")[0]: None for key in keys for name in FACTORS if f".{name}" in key}
    if not found:
        raise InvalidConfig(f"state_dict holds no {', '.join(FACTORS)} among its {len(state_dict)} keys.")
    if isinstance(config, LoraConfig):
        config = replace(config, layers_to_transform=None, layers_pattern=None)
    return replace(config, target_modules="|".join(map(re.escape, found)))
