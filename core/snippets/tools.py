"""The training tools that snippets are written for, and the fields of each (``data/snippets/tools.toml``)."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ..data import read_facts
from ..errors import MethodDoesNotFit, UnknownTool, quoted

FACTS = "snippets/tools.toml"
Form = Literal["python", "yaml", "shell"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A training tool; the fields are explained in the data."""

    name: str
    label: str
    template: str
    form: Form
    file: str
    version: str
    source: str
    methods: tuple[str, ...]
    libraries: tuple[str, ...]
    states: tuple[str, ...]
    classes: str = ""
    unloaded: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    freezes: tuple[dict[str, Any], ...] = ()
    package: str = ""

    def find_misfit(self, library: str, class_name: str | None) -> str:
        """Return why the tool does not train models of a library and class; empty if it does."""
        if library not in self.libraries:
            return f"{self.label} trains models of {quoted(self.libraries)}, not of {library}"
        if self.classes and class_name and not re.search(self.classes, class_name):
            return f"{self.label} does not train a {class_name}"
        if class_name in self.unloaded:
            return f"{self.label} loads no {class_name}, which none of the auto classes that it uses has"
        return ""


def check_fit(tool: Tool, reference: str, peft_type: str, class_name: str | None) -> None:
    """Check that a tool has a method, and trains an architecture.

    Raises:
        MethodDoesNotFit: If it does not, naming the tools that do.
    """
    library = reference.partition(":")[0]
    others = [one.name for one in list_tools() if peft_type in one.methods and not one.find_misfit(library, class_name)]
    why = tool.find_misfit(library, class_name)
    if not why and peft_type not in tool.methods:
        why = f"there is a snippet of {quoted(tool.methods)} for {tool.label}, and none of {peft_type}"
    if why:
        way_out = f"Tools for it: {', '.join(others)}." if others else "No tool has it."
        message = f"No snippet for {reference}: {why}. {way_out}"
        raise MethodDoesNotFit(message, tool=tool.name, reference=reference, peft_type=peft_type, tools=others)


@cache
def list_tools() -> tuple[Tool, ...]:
    """Return the tools, in the order in which they are shown."""
    found = []
    for facts in read_facts(FACTS)["tool"]:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()
        }
        found.append(Tool(**values))
    return tuple(found)


def get_tool(name: str) -> Tool:
    """Return the tool of a name, in any case and with any punctuation.

    Raises:
        UnknownTool: If there is none.
    """
    known = {_key_of(key): tool for tool in list_tools() for key in (tool.name, tool.label)}
    found = known.get(_key_of(name))
    if found is None:
        names = [tool.name for tool in list_tools()]
        raise UnknownTool(name, names, f"Tools: {', '.join(names)}.")
    return found


def _key_of(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
