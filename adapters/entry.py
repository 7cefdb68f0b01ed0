"""``get_peft_model`` and ``inject``, which put adapters into a model, with the choice of its layers."""

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from inspect import signature
from typing import Any

from torch import nn

from ..errors import InvalidConfig
from ..warn import warn
from .checks import check_known
from .choice import choose
from .config import AdapterConfig, LoraConfig
from .injection.apply import prepare
from .injection.host_model import survey_model
from .injection.plan import Expand, check_host
from .model import PeftModel
from .peft_forms import as_config


def get_peft_model(
    model: nn.Module,
    peft_config: AdapterConfig | None = None,
    adapter_name: str = "default",
    mixed: bool = False,
    autocast_adapter_dtype: bool = True,
    revision: str | None = None,
    low_cpu_mem_usage: bool = False,
    *,
    preset: str | None = None,
    example_inputs: Any = None,
    towers: Any = None,
    roles: Any = None,
    blocks: Any = None,
    expert_rank: Any = None,
    budget: Any = None,
    **fields: Any,
) -> PeftModel:
    """Put LoRA, or IA3, into ``model``, in place, and return the wrapper that controls it.

    Without targets in ``peft_config`` they are decided in this order: the registry's entry for the model, checked
    against its layers; the entry of an architecture of the same structure; a live scan. With towers, roles, blocks or a
    budget the scan decides. ``decision`` of the result names the step that decided, and what is recommended beside it;
    so does the log (logger ``loradar``), in one line.

    Args:
        model: Any module, live or on the meta device.
        peft_config: Method, strength and, if it names any, the targets; ``LoraConfig()`` when ``None``. A
            configuration of peft's for LoRA or IA3 is taken as it is.
        adapter_name: Key of the adapter in the state dict.
        mixed: Always ``False``: one model takes one method.
        autocast_adapter_dtype: Whether the adapter's tensors are float32 where the layers have half precision.
        revision: Revision of the base model, for the file.
        low_cpu_mem_usage: Whether the adapter's tensors are on the meta device, until an adapter is loaded into them.
        preset: ``default``, ``recommended``, ``attention``, ``mlp``, ``all-linear``, ``experts`` or ``everything``, of
            which IA3 has the first alone; by default that of ``LORADAR_PRESET``, else the first. Not used if
            ``peft_config`` has targets.
        example_inputs: Inputs of its forward, as in ``scan``: a scan with them decides. Without, a scan makes its own.
        towers: Towers to adapt instead of those of the preset: ``language``, ``vision``, ``audio``, ``projector``,
            ``main``, several of them, or ``all``.
        roles: Roles to adapt, or patterns: ``attention.*``, ``mlp.down``. They narrow a preset; with preset ``default``
            they stand alone.
        blocks: Blocks to adapt: ``last 8``, ``first 4``, ``every 2``, ``10-20``, or a list of numbers from 0.
        expert_rank: Rank of routed experts: ``auto`` (``r`` over the experts that run for a token), ``shared`` (``r``)
            or a number.
        budget: Parameters to train at most, as a number or a share such as ``0.5%``: decides ``r``, and the preset if
            that is ``default``.
        **fields: Fields of the configuration, such as ``r=16``; they replace those of ``peft_config``.

    Raises:
        InvalidConfig: If the configuration is none of ours or does not fit, or the model has adapters or is wrapped.
        TargetsNotFound: If its targets match nothing.
        NoAdaptableLayers: If the model has no layer for an adapter.
        UnknownPreset: If ``preset`` is unknown, or has nothing to adapt in this model.
        UnknownName: If a tower or a role is unknown, or the model lacks the tower.
        InvalidRequest: If a selection cannot be read or matches nothing, or the budget is too small.
    """
    if mixed:
        raise InvalidConfig("mixed=True: one model of loradar takes one method. Use peft, or a second copy.")
    check_host(model)
    given = {"towers": towers, "roles": roles, "blocks": blocks, "expert_rank": expert_rank, "budget": budget}
    choice = {name: value for name, value in given.items() if value is not None}
    config = _configure(peft_config, fields, choice)
    if revision is not None and config.revision not in (None, revision):
        warn(f"The configuration states revision {config.revision!r} of the base model: {revision!r} is recorded.")
    config = replace(config, revision=revision or config.revision)
    adapted = PeftModel.blank(config.task_type)
    storage = {"autocast": autocast_adapter_dtype, "on_meta": low_cpu_mem_usage}
    adapted.adapt(model, choose(model, config, preset, example_inputs, choice), adapter_name, **storage)
    return adapted


def _configure(config: AdapterConfig | None, fields: Mapping[str, Any], choice: Mapping[str, Any]) -> AdapterConfig:
    """Return the configuration with fields given beside it, checked."""
    config = LoraConfig() if config is None else as_config(config)
    options = [*signature(get_peft_model).parameters][1:-1]
    check_known(fields, [*(each.name for each in dataclass_fields(config)), *options], "get_peft_model")
    if "r" in fields and choice.get("budget") is not None:
        raise InvalidConfig(f"r={fields['r']!r} and budget={choice['budget']!r} both decide the rank: leave one out.")
    config = replace(config, **fields)
    if choice.get("budget") is not None:
        for name in ("use_dora", "lora_bias", "trainable_token_indices", "layer_replication"):
            if value := getattr(config, name, False):
                why = f"counts plain LoRA, and {name}={value!r} trains more: give r instead"
                raise InvalidConfig(f"budget={choice['budget']!r} {why}.", budget=choice["budget"])
    return config


def inject(
    model: nn.Module, config: AdapterConfig, adapter_name: str = "default", *, expand: Expand | None = None
) -> PeftModel:
    """Put an adapter into ``model`` as ``config`` states, in place, and return the wrapper that controls it.

    The model may be live or on the meta device. Nothing is changed unless everything can be done.

    Args:
        model: Any module.
        config: The configuration, with targets; peft's of LoRA or IA3 is taken as it is.
        adapter_name: Key of the adapter in the state dict.
        expand: The function that resolves shorthands in ``target_modules``; without it they are rejected.

    Raises:
        TargetsNotFound: If the targets match nothing, naming the closest names and their counts.
        NoAdaptableLayers: If the model has nothing that any target could match.
        InvalidConfig: If the configuration does not fit the model, or the model has adapters or is wrapped or sharded.
    """
    check_host(model)
    survey = survey_model(model)
    config = as_config(config)
    adapted = PeftModel.blank(config.task_type)
    adapted.hold(survey, prepare(survey, config, adapter_name, expand))
    return adapted
