"""adapters *injects*: it puts LoRA into any model, where a configuration says, and takes it out again.

Others may import: ``LoraConfig`` (what and where), ``inject`` (the injection, configuration in hand), ``PeftModel``
(what comes back), ``Expand`` (the type of the hook that resolves ``all-linear``), ``Match`` and ``match`` (what a
configuration would hit, on paths alone).

The way through: ``match`` (pure) -> ``plan`` (frozen data, all checks) -> ``inject.apply`` (builds, then replaces).
"""

from ..extras import require

require("scan", "torch", "safetensors")

from .auto import get_peft_model
from .config import LoraConfig
from .inject import Expand, inject
from .match import Match, match
from .model import PeftModel

__all__ = ["Expand", "LoraConfig", "Match", "PeftModel", "get_peft_model", "inject", "match"]
