"""The training projects whose configurations are read, and the one that a document is of."""

import re
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from ..data import read_facts
from .documents import Document


@dataclass(frozen=True, slots=True)
class Project:
    """How a project writes the LoRA part of a configuration; the fields are explained in the data."""

    name: str
    forms: tuple[str, ...]
    base: tuple[str, ...]
    targets: str
    takes: tuple[str, ...]
    default: str | tuple[str, ...]
    has: tuple[str, ...] = ()
    has_any: tuple[str, ...] = ()
    program: str = ""
    excluded_program: str = ""
    lora: dict[str, Any] | None = None
    component: str = ""
    regex: str = ""
    text: str = "regex"
    single: bool = False
    every: tuple[str, ...] = ()
    every_in_list: bool = False
    every_if: str = ""
    every_by: str = "paths"
    frozen: tuple[dict[str, Any], ...] = ()
    frozen_if: str = "every"
    names: dict[str, Any] | None = None
    roles_if: tuple[dict[str, Any], ...] = ()
    parameters: str = ""
    saved: str = ""
    excluded: str = ""
    blocks: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    excluded_keys: tuple[str, ...] = ()
    own_experts: tuple[str, ...] = ()
    expert_names: dict[str, Any] | None = None

    def owns(self, document: Document) -> bool:
        """Return whether a document is a configuration of the project."""
        keys = document.entries.keys()
        is_called = document.form not in {"shell", "python"} or (
            bool(self.program and re.search(self.program, document.program))
            and not (self.excluded_program and re.search(self.excluded_program, document.program))
        )
        has_keys = (
            keys >= {*self.has}
            and keys.isdisjoint(self.excluded_keys)
            and (not self.has_any or not keys.isdisjoint(self.has_any))
        )
        return document.form in self.forms and is_called and (has_keys or document.form == "python")

    def trains_lora(self, document: Document) -> bool:
        """Return whether the document switches LoRA on."""
        if self.lora is None:
            return True
        keys = (self.lora["key"], *self.lora.get("also", ()))
        given = next((document.entries[key].value for key in keys if key in document.entries), None)
        if given is None:
            return bool(self.lora["default"])
        if "pattern" in self.lora:
            return bool(re.search(self.lora["pattern"], str(given)))
        return given in self.lora["values"]


@cache
def list_projects() -> tuple[Project, ...]:
    """Return the projects, in the order in which they are tried."""
    names = {field.name for field in fields(Project)}
    found = []
    for facts in read_facts("training_configs.toml")["project"]:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()
        }
        found.append(Project(**{key: value for key, value in values.items() if key in names}))
    return tuple(found)


@cache
def find_component(family: str) -> str | None:
    """Return the reference of the model that a family of torchtune's builders makes."""
    components = read_facts("training_configs.toml")["component"]
    return next((str(one["reference"]) for one in components if family in one["families"]), None)
