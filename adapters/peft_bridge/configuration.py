"""``auto_config``: a configuration of the real peft, of any of its methods, ready for one model."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ...domain.methods import UNTARGETED, Method, get_method, list_fact_fields, list_methods
from ...domain.scans import Scan
from ...domain.schema import to_json
from ...errors import InvalidConfig, UnknownPeftType
from ...extras import require
from ..field_checks import check_known
from ..injection.model_checks import check_not_adapted
from ..injection.sites import survey_model
from ..targets import decide, scan_known
from .fill import fill, lacks_targets


def auto_config(model: nn.Module, peft_type: str = "LORA", preset: str = "default", **fields: Any) -> Any:
    """Return a ``peft`` configuration of any method of the installed peft, with the targets for this very model.

    The targets are decided as in ``loradar.get_peft_model``, fused experts and the heads to save included. A method
    of prompt learning gets the depth and widths of the model instead.

    Args:
        model: Any module without adapters, live or on the meta device.
        peft_type: PEFT's name of the method, such as ``"IA3"`` (``peft.PeftType``), in any case.
        preset: Which of the method's presets; not used if ``fields`` name targets.
        **fields: Fields of that configuration. What is given is not decided; targets given leave all to the caller.

    Raises:
        MissingExtra: If peft is not installed.
        UnknownPeftType: If the installed peft has no such method; names those it has.
        InvalidConfig: If the configuration has no such field, one that only the caller can know is missing, or the
            model has adapters.
        UnknownPreset: If the method has no such preset, or none for this model.
        NoAdaptableLayers: If the model has no layer for an adapter.
        MethodDoesNotFit: If the method can adapt nothing of this model, or what it must know of it cannot be told.
    """
    require("peft", "peft")
    check_not_adapted(survey_model(model))
    method, config_class = _find(peft_type)
    check_known(fields, config_class.__dataclass_fields__, config_class.__name__)
    if method.family in UNTARGETED:
        facts = _tell_facts(config_class, method, scan_known(model))
        return _complete(config_class(**{**facts, **fields}), method, facts)
    config = config_class(**fields)
    if lacks_targets(config):
        decision = decide(model, preset, method.name)
        fill(config, decision.spec, model, decision.layers)
    return config


def _find(peft_type: str) -> tuple[Method, Any]:
    """Return a method both known here and installed, and its configuration's class."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {str(known.value): found for known, found in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    names = [method.name for method in list_methods() if method.name in classes]
    name = str(getattr(peft_type, "value", peft_type)).upper()
    if name not in names:
        raise UnknownPeftType(name, names, f"The installed peft has: {', '.join(names)}.")
    return get_method(name), classes[name]


def _tell_facts(config_class: Any, method: Method, found: Scan) -> dict[str, int | None]:
    """Return what a method that names no layers must know of the model, by the fields it wants it in.

    Raises:
        MethodDoesNotFit: If it is not for this model, or something it needs is not known.
    """
    found.propose(method.name)
    facts = to_json(found.prompt_facts)
    wanted = ((need, name) for need in method.needs for name in list_fact_fields().get(need, ()))
    return {name: facts[need] for need, name in wanted if name in config_class.__dataclass_fields__}


def _complete(config: Any, method: Method, facts: Mapping[str, int | None]) -> Any:
    """Return a configuration if nothing is missing in it that only the caller can know."""
    for name, value in facts.items():
        if getattr(config, name) is None:  # CPT's forgets what it is given
            setattr(config, name, value)
    examples = {"num_virtual_tokens": "num_virtual_tokens=20", "task_type": "task_type='CAUSAL_LM'"}
    missing = [name for name in examples if getattr(config, name, None) is None]
    if config.is_prompt_learning and missing:
        way_out = ", ".join(examples[name] for name in missing)
        raise InvalidConfig(f"{method.name} cannot do without {' and '.join(missing)}: give {way_out}, for example.")
    return config
