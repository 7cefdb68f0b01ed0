"""Facts about PEFT's configurations, read from ``data/adapter_fields.toml``."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from .. import data


@dataclass(frozen=True, slots=True)
class PeftFields:
    """What peft 0.21.2 keeps in the configuration of one method beyond the fields loradar supports.

    Attributes:
        inert: Fields supported at this value only.
        idle: Fields without effect while the inert ones are; any value is accepted.
        bookkeeping: Fields that say where a file comes from.
    """

    inert: dict[str, Any]
    idle: dict[str, Any]
    bookkeeping: frozenset[str]


@lru_cache
def peft_fields(peft_type: str) -> PeftFields:
    """Return the facts of ``LORA`` or ``IA3``."""
    inert, idle = (_with_nulls(_tables()[peft_type].get(name, {})) for name in ("inert", "idle"))
    return PeftFields(inert, idle, frozenset(_tables()["bookkeeping"]["names"]))


def task_heads() -> dict[str, tuple[str, ...]]:
    """Return, per task type, the names of the heads that are saved in full."""
    return {task: tuple(names) for task, names in _tables()["task_heads"].items()}


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads(files(data).joinpath("adapter_fields.toml").read_text(encoding="utf-8"))


def _with_nulls(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: the file says ``"none"``."""
    return {name: None if value == "none" else value for name, value in table.items()}
