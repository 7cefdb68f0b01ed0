"""Inject LoRA or IA3 into any model, where a configuration or the registry selects layers, and remove it again.

Others may import: ``LoraConfig`` and ``IA3Config``, ``inject`` with ``Expand`` (the type of its hook for shorthands
such as ``all-linear``), ``get_peft_model``, ``PeftModel``, ``Match`` and ``match`` (the layers of a configuration,
from paths alone), ``Selection`` (the arguments that choose layers) and ``card_of`` (the model card of an adapter).
For the installed peft: ``auto_config`` (configurations, with targets for a model) and ``enable_peft_defaults`` (its
own functions, without targets), whose handle is a ``PeftDefaults``. ``plan`` returns a ``MemoryPlan`` of
``MemoryChoice`` records: the memory of training. ``rank_layers`` returns a ``LayerRanking`` of ``RankedLayer``
records: the importance of layers for some batches.

The steps: ``match`` (paths) -> ``plan`` (frozen data, all checks) -> ``build`` -> ``attach`` (replaces layers, last).
"""

from ..extras import require

require("scan", "torch", "safetensors")

from .choice import Selection
from .config import IA3Config, LoraConfig
from .entry import get_peft_model, inject
from .hub.card import card_of
from .importance import LayerRanking, RankedLayer, rank_layers
from .injection.match import Match, match
from .injection.plan import Expand
from .memory import plan
from .memory_plan import MemoryChoice, MemoryPlan
from .model import (
    PeftModel,
    PeftModelForCausalLM,
    PeftModelForFeatureExtraction,
    PeftModelForQuestionAnswering,
    PeftModelForSeq2SeqLM,
    PeftModelForSequenceClassification,
    PeftModelForTokenClassification,
)
from .peft_bridge.configuration import auto_config
from .peft_bridge.defaults import PeftDefaults, enable_peft_defaults

__all__ = [
    "Expand",
    "IA3Config",
    "LayerRanking",
    "LoraConfig",
    "Match",
    "MemoryChoice",
    "MemoryPlan",
    "PeftDefaults",
    "PeftModel",
    "PeftModelForCausalLM",
    "PeftModelForFeatureExtraction",
    "PeftModelForQuestionAnswering",
    "PeftModelForSeq2SeqLM",
    "PeftModelForSequenceClassification",
    "PeftModelForTokenClassification",
    "RankedLayer",
    "Selection",
    "auto_config",
    "card_of",
    "enable_peft_defaults",
    "get_peft_model",
    "inject",
    "match",
    "plan",
    "rank_layers",
]
