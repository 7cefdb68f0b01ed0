"""Facts about PEFT's LoRA configuration, read from ``data/lora_fields.toml``."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from .. import data


@dataclass(frozen=True, slots=True)
class PeftFields:
    """What peft 0.21.2 keeps in a LoRA configuration beyond the fields loradar supports.

    Attributes:
        inert: Fields supported at this value only.
        idle: Fields without effect while the inert ones are; any value is accepted.
        bookkeeping: Fields that say where a file comes from.
        task_heads: Per task type, the names of the heads that are saved in full.
    """

    inert: dict[str, Any]
    idle: dict[str, Any]
    bookkeeping: frozenset[str]
    task_heads: dict[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def peft_fields() -> PeftFields:
    """Return the facts, read once."""
    tables = tomllib.loads(files(data).joinpath("lora_fields.toml").read_text(encoding="utf-8"))
    return PeftFields(
        inert=_with_nulls(tables["inert"]),
        idle=_with_nulls(tables["idle"]),
        bookkeeping=frozenset(tables["bookkeeping"]["names"]),
        task_heads={task: tuple(names) for task, names in tables["task_heads"].items()},
    )


def _with_nulls(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: the file says ``"none"``."""
    return {name: None if value == "none" else value for name, value in table.items()}
