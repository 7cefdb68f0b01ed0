"""``get_peft_model`` and ``inject``, which put adapters into a model, with the choice of its layers."""

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

from torch import nn

from ..discovery import open_wrappers
from ..domain.methods import choose_preset
from ..errors import InvalidConfig
from ..warn import warn
from .checks import check_known
from .config import AdapterConfig, LoraConfig
from .injection.apply import prepare
from .injection.host_model import survey_model, unwrapped
from .injection.match import warn_of_exclusions
from .injection.plan import Expand, check_host
from .model import PeftModel
from .peft_forms import as_config
from .targets import Decision, decide, expand_shorthand, with_ranks


def get_peft_model(
    model: nn.Module,
    config: AdapterConfig | None = None,
    *,
    preset: str | None = None,
    adapter_name: str = "default",
    example_inputs: Any = None,
    towers: Any = None,
    roles: Any = None,
    blocks: Any = None,
    expert_rank: Any = None,
    budget: Any = None,
    **fields: Any,
) -> PeftModel:
    """Put LoRA, or IA3, into ``model``, in place, and return the wrapper that controls it.

    Without targets in ``config`` they are decided in this order: the registry's entry for the model, checked against
    its layers; the entry of an architecture of the same structure; a live scan. With towers, roles, blocks or a budget
    the scan decides. ``decision`` of the result names the step that decided, and what is recommended beside it; so does
    the log (logger ``loradar``), in one line.

    Args:
        model: Any module, live or on the meta device.
        config: Method, strength and, if it names any, the targets; ``LoraConfig()`` when ``None``. A configuration of
            peft's for LoRA or IA3 is taken as it is.
        preset: ``default``, ``recommended``, ``attention``, ``mlp``, ``all-linear``, ``experts`` or ``everything``, of
            which IA3 has the first alone; by default that of ``LORADAR_PRESET``, else the first. Not used if
            ``config`` has targets.
        adapter_name: Key of the adapter in the state dict.
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
        **fields: Fields of the configuration, such as ``r=16``; they replace those of ``config``.

    Raises:
        InvalidConfig: If the configuration is none of ours or does not fit, or the model has adapters or is wrapped.
        TargetsNotFound: If its targets match nothing.
        NoAdaptableLayers: If the model has no layer for an adapter.
        UnknownPreset: If ``preset`` is unknown, or has nothing to adapt in this model.
        UnknownName: If a tower or a role is unknown, or the model lacks the tower.
        InvalidRequest: If a selection cannot be read or matches nothing, or the budget is too small.
    """
    given = {"towers": towers, "roles": roles, "blocks": blocks, "expert_rank": expert_rank, "budget": budget}
    choice = {name: value for name, value in given.items() if value is not None}
    config = given_config = _configure(config, fields, choice)
    if config.spec.target_modules is not None or config.spec.target_parameters:
        if choice:
            names = ", ".join(choice)
            raise InvalidConfig(f"{names} selects layers, and the configuration names them too: leave one of both out.")
        decision = Decision("config", config.spec, "targets given in the configuration")
    else:
        check_host(model)  # its adapters would look like a misfit of the registry
        rank = {"rank": config.r} if isinstance(config, LoraConfig) else {}
        preset = choose_preset(preset, config.method)
        with unwrapped(model) as inner:
            decision = decide(inner, preset, config.method, example_inputs, **rank, **choice)
        for left_out in () if config.modules_to_save else decision.frozen:
            warn(left_out)
        if decision.spec.saves_alone:
            warn(decision.spec.describe_saved())
        config = with_ranks(config.with_spec(decision.spec), decision)
    config = config.for_base(open_wrappers(model)[-1].__dict__.get("name_or_path"))
    expand = partial(expand_shorthand, example_inputs=example_inputs)
    adapted = inject(model, config, adapter_name, expand=expand)
    warn_of_exclusions(adapted._survey().paths, given_config)  # noqa: SLF001 - its own class
    adapted.decision = decision.about([*adapted.targeted_module_names, *adapted.targeted_parameter_names])
    return adapted


def _configure(config: AdapterConfig | None, fields: Mapping[str, Any], choice: Mapping[str, Any]) -> AdapterConfig:
    """Return the configuration with fields given beside it, checked."""
    config = LoraConfig() if config is None else as_config(config)
    options = [*signature(get_peft_model).parameters][2:-1]
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
    return PeftModel(survey, prepare(survey, as_config(config), adapter_name, expand))
