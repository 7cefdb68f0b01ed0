"""``get_peft_model`` and ``inject``, which put adapters into a model, with the choice of its layers."""

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from inspect import signature
from typing import Any

from torch import nn

from ..domain.vocabulary import RANK
from ..errors import InvalidConfig
from ..warn import warn
from .checks import check_budget, check_known
from .choice import Selection, choose
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
    servable: str | None = None,
    **fields: Any,
) -> PeftModel:
    """Put LoRA, or IA3, into ``model``, in place, and return the wrapper that controls it.

    Without targets in ``peft_config`` they are decided in this order: the registry's entry for the model, checked
    against its layers; the entry of an architecture of the same structure; a live scan. With towers, roles, blocks or a
    budget the scan decides. ``decision`` of the result names the step, and so does the log (logger ``loradar``).

    PEFT's arguments are documented at ``PeftModel`` (``mixed`` is always ``False``, ``revision`` is the base model's),
    the others at ``loradar.adapters.Selection``; ``fields`` are those of the configuration, and replace its own.

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
    given = Selection(towers=towers, roles=roles, blocks=blocks, expert_rank=expert_rank, budget=budget)
    given |= Selection(servable=servable)
    config, choice = _configure(peft_config, fields, given, revision)
    adapted, chosen = PeftModel.blank(config.task_type), choose(model, config, preset, example_inputs, choice)
    adapted.adapt(model, chosen, adapter_name, autocast=autocast_adapter_dtype, on_meta=low_cpu_mem_usage)
    return adapted


def _configure(
    config: AdapterConfig | None, fields: Mapping[str, Any], given: Selection, revision: str | None
) -> tuple[AdapterConfig, Selection]:
    """Return the configuration with fields given beside it, checked, and the selection without what is not given."""
    config = LoraConfig() if config is None else as_config(config)
    choice: Any = {name: value for name, value in given.items() if value is not None}
    options = [*signature(get_peft_model).parameters][1:-1]
    check_known(fields, [*(each.name for each in dataclass_fields(config)), *options], "get_peft_model")
    budget = choice.get("budget")
    r = fields.get("r", getattr(config, "r", RANK))
    if budget is not None and ("r" in fields or r != RANK):
        raise InvalidConfig(f"r={r!r} and budget={budget!r} both decide the rank: leave one out.")
    if revision is not None and config.revision not in (None, revision):
        warn(f"The configuration states revision {config.revision!r} of the base model: {revision!r} is recorded.")
    config = replace(config, **{"revision": revision or config.revision, **fields})
    check_budget(config, budget)
    return config, choice


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
