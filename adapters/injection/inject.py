"""From a model and a configuration to a ``PeftModel``: match, plan, build, and only then replace."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from ...domain.targets import TargetSpec
from ...errors import InvalidConfig, TargetsNotFound
from ..config import AdapterConfig
from ..fields import task_heads
from ..files.checkpoint import check_ranks, fill
from ..model import PeftModel
from ..validation import ALL_LINEAR
from . import foreign
from .apply import Part, Prepared, copy_of, layer_class
from .match import match
from .model_checks import check_adaptable, check_blocks, check_not_adapted
from .plan import Plan, make_plan
from .sites import Survey, survey_model

Expand = Callable[[nn.Module, str], TargetSpec]
"""Turns a model and a shorthand such as ``all-linear`` into the targets it stands for there."""


def inject(
    model: nn.Module, config: AdapterConfig, adapter_name: str = "default", *, expand: Expand | None = None
) -> PeftModel:
    """Put an adapter into ``model`` where ``config`` says, in place, and return the wrapper that steers it.

    The model may be live or on the meta device. Nothing is changed unless everything can be done.

    Args:
        model: Any module.
        config: What to adapt; its targets must be set.
        adapter_name: Key of the adapter in the state dict.
        expand: Resolves shorthands in ``target_modules``; refused if it is needed and ``None``.

    Raises:
        TargetsNotFound: If the targets match nothing, naming the closest names and their counts.
        NoAdaptableLayers: If the model has nothing that any target could match.
        InvalidConfig: If the configuration does not fit the model, or the model has adapters.
    """
    survey = survey_model(model)
    check_not_adapted(survey)
    return PeftModel(survey, prepare(survey, config, adapter_name, expand=expand))


def prepare(
    survey: Survey,
    config: AdapterConfig,
    adapter_name: str,
    *,
    expand: Expand | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> Prepared:
    """Check and build an adapter for a model, which stays as it is.

    Args:
        survey: The walk over the model.
        config: What to adapt; its targets must be set.
        adapter_name: Key of the adapter in the state dict.
        expand: As with ``inject``.
        tensors: Content of an adapter file to fill it with; freshly initialised when ``None``.

    Raises:
        TargetsNotFound: As ``inject``.
        NoAdaptableLayers: As ``inject``.
        InvalidConfig: As ``inject``, or if ``adapter_name`` cannot be a key.
        AdapterUnreadable: If ``tensors`` do not fit.
    """
    check_adapter_name(adapter_name)
    config = settle(_expanded(survey.model, config, expand), survey)
    plan = plan_for(survey, config)
    if tensors is not None:
        check_ranks(plan, tensors)
    prepared = _build(survey, plan, config, adapter_name)
    if tensors is not None:
        fill(survey, prepared, tensors)
    else:
        for part in prepared.parts:
            part.layer.initialise(part.children, how=config.initialisation)
    return prepared


def plan_for(survey: Survey, config: AdapterConfig) -> Plan:
    """Return the plan for ``config``, and warn of every target or saved name that hits nothing.

    Raises:
        TargetsNotFound: As ``inject``.
        NoAdaptableLayers: As ``inject``.
        InvalidConfig: As ``inject``.
    """
    check_blocks(survey, config)
    parameters = survey.parameter_paths() if config.spec.target_parameters else ()
    try:
        found = match(survey.paths, config, parameters)
    except TargetsNotFound:
        check_adaptable(survey)
        raise
    for remark in found.remarks:
        warnings.warn(remark, stacklevel=4)
    return make_plan(survey, found, config)


def check_adapter_name(name: str) -> None:
    """Refuse a name that cannot be a key of a ``ModuleDict``.

    Raises:
        InvalidConfig: Naming it.
    """
    if not name or "." in name or name == "__base__" or hasattr(nn.ModuleDict, name):
        raise InvalidConfig(f"adapter_name={name!r} is not usable: give a word such as 'default'.", adapter_name=name)


def _build(survey: Survey, plan: Plan, config: AdapterConfig, adapter_name: str) -> Prepared:
    """Create every part, attached to nothing yet."""
    parts = []
    for planned in plan.adapters:
        base = survey.sites[planned.path].module
        layer = layer_class(config.peft_type, planned.kind, base)
        parts.append(Part(planned, layer, layer.parts(base, planned)))
    copies = {path: copy_of(survey.sites[path].module) for path in plan.saved}
    is_transposed = any(planned.fan_in_fan_out and not planned.parameter for planned in plan.adapters)
    name = config.base_model_name_or_path or foreign.name_of(survey.model)
    config = replace(config, fan_in_fan_out=is_transposed, base_model_name_or_path=name)
    return Prepared(adapter_name, config, tuple(parts), copies)


def _expanded(model: nn.Module, config: AdapterConfig, expand: Expand | None) -> AdapterConfig:
    targets = config.spec.target_modules
    if not isinstance(targets, str) or targets.lower() != ALL_LINEAR:
        return config
    if expand is None:
        way_out = "Use loradar.get_peft_model, which does, or name the layers."
        raise InvalidConfig(f"target_modules={targets!r} is a shorthand that nothing resolves here. {way_out}")
    return config.with_spec(expand(model, ALL_LINEAR))


def settle(config: AdapterConfig, survey: Survey) -> AdapterConfig:
    """Save the heads of the task, as PEFT's task classes do, but only those that are there."""
    heads = task_heads().get(config.task_type or "", ())
    if not heads:
        return config
    names = {path.rpartition(".")[2] for path in survey.sites}
    own = [name for name in config.modules_to_save or () if name not in heads]
    return replace(config, modules_to_save=[*own, *(head for head in heads if head in names)])
