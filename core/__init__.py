"""Provide loradar's public names, each loaded on first use, so that ``import loradar`` never imports torch.

``scan`` -> discovery, ``lookup`` (here or by a service), ``check`` (training configurations), ``snippet`` (for
training tools) and ``explain`` (layers) -> registry,
``get_peft_model``, ``LoraConfig``, ``IA3Config`` and ``PeftModel`` -> adapters, with PEFT's functions
(``inject_adapter_in_model``, ``get_layer_status`` ...), ``plan`` (memory), ``rank_layers`` (importance), ``doctor``
(saved adapters), and ``auto_config`` and ``enable_peft_defaults`` for the real peft, ``Client`` -> the REST client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import (
        IA3Config,
        LoraConfig,
        PeftModel,
        PeftModelForCausalLM,
        PeftModelForFeatureExtraction,
        PeftModelForQuestionAnswering,
        PeftModelForSeq2SeqLM,
        PeftModelForSequenceClassification,
        PeftModelForTokenClassification,
        auto_config,
        enable_peft_defaults,
        get_peft_model,
        plan,
        rank_layers,
    )
    from .adapters.doctor import doctor
    from .adapters.peft_bridge.auto_models import (
        AutoPeftModel,
        AutoPeftModelForCausalLM,
        AutoPeftModelForFeatureExtraction,
        AutoPeftModelForQuestionAnswering,
        AutoPeftModelForSeq2SeqLM,
        AutoPeftModelForSequenceClassification,
        AutoPeftModelForTokenClassification,
    )
    from .adapters.peft_bridge.functions import (
        get_layer_status,
        get_model_status,
        get_peft_model_state_dict,
        hotswap_adapter,
        inject_adapter_in_model,
        rescale_adapter_scale,
        set_peft_model_state_dict,
    )
    from .client import AsyncClient, Client
    from .discovery import scan
    from .errors import LoradarError
    from .lookups import lookup
    from .registry import check, explain, snippet

    __version__: str

_HOMES = {
    "AsyncClient": ".client",
    "AutoPeftModel": ".adapters.peft_bridge.auto_models",
    "AutoPeftModelForCausalLM": ".adapters.peft_bridge.auto_models",
    "AutoPeftModelForFeatureExtraction": ".adapters.peft_bridge.auto_models",
    "AutoPeftModelForQuestionAnswering": ".adapters.peft_bridge.auto_models",
    "AutoPeftModelForSeq2SeqLM": ".adapters.peft_bridge.auto_models",
    "AutoPeftModelForSequenceClassification": ".adapters.peft_bridge.auto_models",
    "AutoPeftModelForTokenClassification": ".adapters.peft_bridge.auto_models",
    "Client": ".client",
    "IA3Config": ".adapters",
    "LoraConfig": ".adapters",
    "LoradarError": ".errors",
    "PeftModel": ".adapters",
    "PeftModelForCausalLM": ".adapters",
    "PeftModelForFeatureExtraction": ".adapters",
    "PeftModelForQuestionAnswering": ".adapters",
    "PeftModelForSeq2SeqLM": ".adapters",
    "PeftModelForSequenceClassification": ".adapters",
    "PeftModelForTokenClassification": ".adapters",
    "auto_config": ".adapters",
    "check": ".registry",
    "doctor": ".adapters.doctor",
    "explain": ".registry",
    "enable_peft_defaults": ".adapters",
    "get_layer_status": ".adapters.peft_bridge.functions",
    "get_model_status": ".adapters.peft_bridge.functions",
    "get_peft_model": ".adapters",
    "get_peft_model_state_dict": ".adapters.peft_bridge.functions",
    "hotswap_adapter": ".adapters.peft_bridge.functions",
    "inject_adapter_in_model": ".adapters.peft_bridge.functions",
    "lookup": ".lookups",
    "plan": ".adapters",
    "rank_layers": ".adapters",
    "rescale_adapter_scale": ".adapters.peft_bridge.functions",
    "scan": ".discovery",
    "set_peft_model_state_dict": ".adapters.peft_bridge.functions",
    "snippet": ".registry",
}

__all__ = [
    "AsyncClient",
    "AutoPeftModel",
    "AutoPeftModelForCausalLM",
    "AutoPeftModelForFeatureExtraction",
    "AutoPeftModelForQuestionAnswering",
    "AutoPeftModelForSeq2SeqLM",
    "AutoPeftModelForSequenceClassification",
    "AutoPeftModelForTokenClassification",
    "Client",
    "IA3Config",
    "LoraConfig",
    "LoradarError",
    "PeftModel",
    "PeftModelForCausalLM",
    "PeftModelForFeatureExtraction",
    "PeftModelForQuestionAnswering",
    "PeftModelForSeq2SeqLM",
    "PeftModelForSequenceClassification",
    "PeftModelForTokenClassification",
    "__version__",
    "auto_config",
    "check",
    "doctor",
    "enable_peft_defaults",
    "explain",
    "get_layer_status",
    "get_model_status",
    "get_peft_model",
    "get_peft_model_state_dict",
    "hotswap_adapter",
    "inject_adapter_in_model",
    "lookup",
    "plan",
    "rank_layers",
    "rescale_adapter_scale",
    "scan",
    "set_peft_model_state_dict",
    "snippet",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562); the version too, whose reading takes 40 ms."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("loradar")
    if name not in _HOMES:
        message = f"module 'loradar' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
