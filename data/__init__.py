"""Facts in files: PEFT's constants, the lexicon and the order of task classes; README.md says where each is from."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def read_facts(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of this folder, read once."""
    return tomllib.loads((resources.files(__name__) / name).read_text("utf-8"))
