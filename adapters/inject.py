"""From a model and a configuration to a ``PeftModel``: match, plan, build, and only then replace."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from ..errors import InvalidConfig, TargetsNotFound
from ..targets import TargetSpec
from . import foreign
from .checkpoint import fill
from .checks import check_adaptable
from .config import LoraConfig
from .fields import peft_fields
from .layers import LAYERS, LoraLayer
from .match import match
from .model import PeftModel
from .placement import Placement
from .plan import Plan, make_plan
from .saved import SavedModule
from .sites import Survey, survey_model
from .validation import ALL_LINEAR

Expand = Callable[[nn.Module, str], TargetSpec]
"""Turns a model and a shorthand such as ``all-linear`` into the targets it stands for there."""


def inject(
    model: nn.Module, config: LoraConfig, adapter_name: str = "default", *, expand: Expand | None = None
) -> PeftModel:
    """Put LoRA into ``model`` where ``config`` says, in place, and return the wrapper that steers it.

    The model may be live or on the meta device. Nothing is changed unless everything can be done.

    Args:
        model: Any module.
        config: What to adapt; ``target_modules`` must be set.
        adapter_name: Key of the adapter in the state dict.
        expand: Resolves ``target_modules="all-linear"``.

    Raises:
        TargetsNotFound: If the targets match nothing, naming the closest names and their counts.
        NoAdaptableLayers: If the model has nothing that any target could match.
        InvalidConfig: If the configuration does not fit the model.
    """
    survey = survey_model(model)
    config = settle(_expanded(model, config, expand), survey)
    return apply(survey, plan_for(survey, config), config, adapter_name)


def plan_for(survey: Survey, config: LoraConfig) -> Plan:
    """Return the plan for ``config``, and warn of every target or saved name that hits nothing.

    Raises:
        TargetsNotFound: As ``inject``.
        NoAdaptableLayers: As ``inject``.
        InvalidConfig: As ``inject``.
    """
    try:
        found = match(survey.paths, config)
    except TargetsNotFound:
        check_adaptable(survey)
        raise
    for remark in found.remarks:
        warnings.warn(remark, stacklevel=4)
    return make_plan(survey, found, config)


def apply(
    survey: Survey,
    plan: Plan,
    config: LoraConfig,
    adapter_name: str,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> PeftModel:
    """Build what the plan says, fill it, and then put it into the model.

    Args:
        survey: The walk the plan was made from.
        plan: What to do.
        config: Initialisation, biases, and what is kept in the adapter's file.
        adapter_name: Key of the adapter in the state dict.
        tensors: Content of an adapter file to fill it with; freshly initialised when ``None``.

    Raises:
        InvalidConfig: If ``adapter_name`` cannot be a key.
        AdapterUnreadable: If ``tensors`` do not fit; the model is unchanged.
    """
    check_adapter_name(adapter_name)
    placements = _build(survey, plan, adapter_name)
    if tensors is not None:
        fill(survey, placements, tensors)
    else:
        _initialise(placements, config)
    is_transposed = any(planned.fan_in_fan_out for planned in plan.adapters)
    name = config.base_model_name_or_path or foreign.name_of(survey.model)
    config = replace(config, fan_in_fan_out=is_transposed, base_model_name_or_path=name)
    return PeftModel(survey, placements, config, adapter_name)


def check_adapter_name(name: str) -> None:
    """Refuse a name that cannot be a key of a ``ModuleDict``.

    Raises:
        InvalidConfig: Naming it.
    """
    if not name or "." in name or hasattr(nn.ModuleDict, name):
        raise InvalidConfig(f"adapter_name={name!r} is not usable: give a word such as 'default'.", adapter_name=name)


def _build(survey: Survey, plan: Plan, adapter_name: str) -> tuple[Placement, ...]:
    """Create every replacement, attached to nothing yet."""
    placements = []
    for planned in plan.adapters:
        site = survey.sites[planned.path]
        layer = LAYERS[planned.kind](site.module, planned, adapter_name)
        placements.append(Placement(planned.path, site, layer))
    for path in plan.saved:
        site = survey.sites[path]
        placements.append(Placement(path, site, SavedModule(site.module, adapter_name)))
    return tuple(placements)


def _initialise(placements: tuple[Placement, ...], config: LoraConfig) -> None:
    for placement in placements:
        if isinstance(placement.replacement, LoraLayer) and not placement.site.module.weight.is_meta:
            placement.replacement.reset_lora_parameters(config.init_lora_weights)


def _expanded(model: nn.Module, config: LoraConfig, expand: Expand | None) -> LoraConfig:
    targets = config.spec.target_modules
    if not isinstance(targets, str) or targets.lower() != ALL_LINEAR:
        return config
    if expand is None:
        way_out = "Use loradar.get_peft_model, which does, or name the layers."
        raise InvalidConfig(f"target_modules={targets!r} is a shorthand that nothing resolves here. {way_out}")
    return config.with_spec(expand(model, ALL_LINEAR))


def settle(config: LoraConfig, survey: Survey) -> LoraConfig:
    """Save the heads of the task, as PEFT's task classes do, but only those that are there."""
    heads = peft_fields().task_heads.get(config.task_type or "", ())
    if not heads:
        return config
    names = {path.rpartition(".")[2] for path in survey.sites}
    own = [name for name in config.modules_to_save or () if name not in heads]
    return replace(config, modules_to_save=[*own, *(head for head in heads if head in names)])
