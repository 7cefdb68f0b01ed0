"""The scanner's facts in files: each read once."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from ... import data


@cache
def read_facts(name: str) -> dict[str, Any]:
    """Return the content of a TOML file in ``data/``."""
    return tomllib.loads(resources.files(data).joinpath(name).read_text("utf-8"))
