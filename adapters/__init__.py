"""adapters *injects*: it puts LoRA or IA3 into any model, where a configuration says, and takes it out again.

Others may import: ``LoraConfig`` and ``IA3Config`` (what and where), ``inject`` (the injection, configuration in
hand), ``PeftModel`` (what comes back), ``Expand`` (the type of the hook that resolves ``all-linear``), ``Match`` and
``match`` (what a configuration would hit, on paths alone), ``card_of`` (the model card of an adapter). For the real
peft: ``auto_config`` (its configurations, ready for a model) and ``enable_peft_defaults`` (its own functions, without
targets), whose handle is a ``PeftDefaults``.

The way through: ``match`` (pure) -> ``plan`` (frozen data, all checks) -> ``prepare`` (builds) -> ``attach``
(replaces, last).
"""

from ..extras import require

require("scan", "torch", "safetensors")

from .auto import get_peft_model
from .config import IA3Config, LoraConfig
from .hub.card import card_of
from .injection.match import Match, match
from .injection.plan import Expand
from .model import PeftModel, inject
from .peft_bridge.configuration import auto_config
from .peft_bridge.defaults import PeftDefaults, enable_peft_defaults

__all__ = [
    "Expand",
    "IA3Config",
    "LoraConfig",
    "Match",
    "PeftDefaults",
    "PeftModel",
    "auto_config",
    "card_of",
    "enable_peft_defaults",
    "get_peft_model",
    "inject",
    "match",
]
