"""``get_peft_model``: a model in, an adapted model out, with or without a configuration."""

from torch import nn

from ..errors import InvalidConfig
from .config import AdapterConfig, LoraConfig
from .injection.model_checks import check_not_adapted
from .injection.sites import survey_model
from .model import PeftModel, inject
from .targets import Decision, decide, expand_shorthand


def get_peft_model(
    model: nn.Module,
    config: AdapterConfig | None = None,
    *,
    preset: str = "default",
    adapter_name: str = "default",
) -> PeftModel:
    """Put LoRA, or IA3, into ``model``, in place, and return the wrapper that steers it.

    Without targets in ``config`` they are decided in this order: the registry's entry for the model, checked against
    its layers; the entry of an architecture of the same structure; a live scan. ``decision`` of the result says which
    step decided, and so does the log (logger ``loradar``).

    Args:
        model: Any module, live or on the meta device.
        config: Method, strength and, if it names any, the targets; ``LoraConfig()`` when ``None``.
        preset: ``default``, ``attention``, ``mlp``, ``all-linear`` or ``experts``, of which IA3 has the first alone;
            not used if ``config`` has targets.
        adapter_name: Key of the adapter in the state dict.

    Raises:
        InvalidConfig: If the configuration is none of ours or does not fit the model, or the model has adapters.
        TargetsNotFound: If its targets match nothing.
        NoAdaptableLayers: If the model has no layer for an adapter.
        UnknownPreset: If ``preset`` is unknown, or has nothing to adapt in this model.
    """
    config = _checked(config)
    if config.spec.target_modules is not None or config.spec.target_parameters:
        decision = Decision("config", config.spec, "targets given in the configuration")
    else:
        check_not_adapted(survey_model(model))  # or the adapters in it would be taken for misfits of the registry
        decision = decide(model, preset, config.peft_type)
        config = config.with_spec(decision.spec)
    adapted = inject(model, config, adapter_name, expand=expand_shorthand)
    adapted.decision = decision.about([*adapted.targeted_module_names, *adapted.targeted_parameter_names])
    return adapted


def _checked(config: AdapterConfig | None) -> AdapterConfig:
    if config is None:
        return LoraConfig()
    if not isinstance(config, AdapterConfig):
        given = f"{type(config).__module__}.{type(config).__qualname__}"
        message = f"config is a {given}, not one of loradar's. Make one with the same fields: LoraConfig(r=8)."
        raise InvalidConfig(message, given=given)
    return config
