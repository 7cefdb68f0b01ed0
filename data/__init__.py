"""Keep facts in files, each with its source: PEFT's constants, beliefs about names, recommendations, the catalog."""

import json
import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def read_facts(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of this folder, read once."""
    return tomllib.loads((resources.files(__name__) / name).read_text("utf-8"))


@cache
def list_peft_types() -> frozenset[str]:
    """Return the model types for which a packaged version of PEFT has default targets of LoRA."""
    files = (file for file in (resources.files(__name__) / "constants").iterdir() if file.name.startswith("peft-"))
    tables = (json.loads(file.read_text("utf-8"))["tables"] for file in files)
    return frozenset(name for one in tables for name in one["TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"])
