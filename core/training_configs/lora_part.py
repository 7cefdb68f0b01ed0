"""The LoRA part of a configuration: the model, the targets and the saved modules, each with its line."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidConfig
from .documents import Document, Entry, read_yaml
from .projects import Project, find_component, list_projects
from .python_calls import read_python
from .shell_commands import read_shell

_FORMS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sh": "shell", ".bash": "shell", ".py": "python"}
MOST_PARTS = 64
MOST_TARGETS = 256
"""Names of layers in one part; each is compared with every layer of the model."""
_PROJECTS = "axolotl, LLaMA-Factory, ms-swift, TRL, Unsloth, torchtune, diffusers and PEFT"


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a configuration, with its line."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class LoraPart:
    """The LoRA part of a configuration.

    Attributes:
        project: The project whose configuration it is.
        form: ``yaml``, ``json``, ``shell`` or ``python``.
        line: The line it starts on.
        base: The model, as it is named.
        reference: The architecture, where the project's own name of the model is one of data.
        names: The target modules by name.
        regex: The target modules as a regex.
        every: What stands for every linear layer.
        roles: The roles that switches stand for, each with the switch.
        is_default: Whether no targets are named.
        unread: Why the targets are not known; empty if they are.
        parameters: The target parameters.
        saved: The modules trained in full.
        excluded: The modules left alone; a single regex has ``excludes_by_regex``.
        excludes_by_regex: Whether that is a regex.
        blocks: The key that selects blocks.
        frozen: Towers that get no adapter.
        has_own_experts: Whether the program adapts the experts by itself.
        tokens: The key that adds tokens, whose embeddings are not trained by themselves.
    """

    project: Project
    form: str
    line: int
    base: Named | None
    reference: str | None
    names: tuple[Named, ...] = ()
    regex: Named | None = None
    every: Named | None = None
    roles: tuple[tuple[str, Named], ...] = ()
    is_default: bool = False
    unread: str = ""
    parameters: tuple[Named, ...] = ()
    saved: tuple[Named, ...] = ()
    excluded: tuple[Named, ...] = ()
    excludes_by_regex: bool = False
    blocks: Named | None = None
    frozen: frozenset[str] = frozenset()
    tokens: Named | None = None
    has_own_experts: bool = False

    @property
    def target_line(self) -> int:
        """The line of the targets, or of the part where none are named."""
        first = next(iter(self.names), self.regex or self.every)
        return first.line if first else self.line


def read_parts(text: str, name: str) -> tuple[LoraPart, ...]:
    """Return the LoRA parts of a configuration: one, or one for each command or call.

    Args:
        text: The content of the file.
        name: Its name, whose ending tells the form.

    Raises:
        InvalidConfig: If it cannot be read, is of none of the projects, or trains no LoRA.
    """
    documents = _read(text, name)
    owned = [(document, project) for document in documents if (project := _find_owner(document))]
    if not owned:
        message = f"It has no LoRA part of {_PROJECTS}: none of their keys is in it."
        raise InvalidConfig(message)
    parts = [_read_part(document, project) for document, project in owned if project.trains_lora(document)]
    if not parts:
        _, project = owned[0]
        switch = f": {project.lora['key']} does not switch it on" if project.lora else ""
        message = f"It is a configuration of {project.name} that trains no LoRA{switch}."
        raise InvalidConfig(message)
    targets = max(len(part.names) + len(part.parameters) + len(part.saved) + len(part.excluded) for part in parts)
    if len(parts) > MOST_PARTS or targets > MOST_TARGETS:
        message = (
            f"It has {len(parts)} LoRA parts, with up to {targets} names: at most {MOST_PARTS} and {MOST_TARGETS}."
        )
        raise InvalidConfig(message)
    return tuple(parts)


def _read(text: str, name: str) -> tuple[Document, ...]:
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    form = _FORMS.get(ending) or ("json" if text.lstrip().startswith("{") else "yaml")
    if form == "shell":
        return read_shell(text)
    return read_python(text) if form == "python" else (read_yaml(text, form),)


def _find_owner(document: Document) -> Project | None:
    return next((project for project in list_projects() if project.owns(document)), None)


def _read_part(document: Document, project: Project) -> LoraPart:
    entries = document.entries
    base = next((entries[key] for key in project.base if key in entries), None)
    named = Named(str(base.value), base.line) if base and base.value else None
    component = re.match(project.component, named.text) if project.component and named else None
    reader = _Reader(document, project)
    tokens = next((key for key in project.tokens if key in entries and _is_set(entries[key])), None)
    blocks = next((key for key in project.blocks if key in entries and _is_set(entries[key])), None)
    return LoraPart(
        project,
        document.form,
        document.line,
        named,
        find_component(component["family"]) if component else None,
        **reader.read_targets(),
        parameters=tuple(_list_names(entries.get(project.parameters))),
        saved=tuple(_list_names(entries.get(project.saved), is_split=project.text == "list")),
        excluded=tuple(_list_names(entries.get(project.excluded))),
        excludes_by_regex=isinstance(getattr(entries.get(project.excluded), "value", None), str),
        blocks=Named(blocks, entries[blocks].line) if blocks else None,
        tokens=Named(tokens, entries[tokens].line) if tokens else None,
        has_own_experts=any(key in entries and _is_set(entries[key]) for key in project.own_experts),
    )


def _is_set(entry: Entry) -> bool:
    return bool(entry.value) or not entry.is_read


def _list_names(entry: Entry | None, *, is_split: bool = False) -> Iterator[Named]:
    """Yield the names of a list; of a text those between commas, if it is split, else the text."""
    if entry is None or entry.value is None or isinstance(entry.value, bool):
        return
    if isinstance(entry.value, list):
        lines: Iterable[int] = entry.lines or [entry.line] * len(entry.value)
        yield from (Named(str(one), line) for one, line in zip(entry.value, lines, strict=True) if one is not None)
        return
    texts = str(entry.value).split(",") if is_split else [str(entry.value)]
    yield from (Named(text.strip(), entry.line) for text in texts if text.strip())


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Document
    project: Project

    def read_targets(self) -> dict[str, Any]:
        """Return the targets of a part, as fields of ``LoraPart``."""
        project, entries = self.project, self.document.entries
        entry = entries.get(project.regex) if project.regex else None
        if entry is not None and _is_set(entry):
            return self._finish(regex=Named(str(entry.value), entry.line)) if entry.is_read else {"unread": "variable"}
        entry = entries.get(project.targets)
        if entry is not None and not entry.is_read:
            return {"unread": f"line {entry.line} has an expression or a variable"}
        names = tuple(_list_names(entry, is_split=project.text == "list"))
        is_text = entry is not None and not isinstance(entry.value, list) and project.text == "regex"
        is_text = is_text or (project.single and len(names) == 1)
        every = self._find_every(names, is_text=is_text)
        names = tuple(name for name in names if name != every)
        roles = tuple(self._list_roles(names))
        if is_text and names:
            return self._finish(regex=names[0], every=every)
        return self._finish(
            names=() if project.names else names,
            every=every,
            roles=roles,
            is_default=not (names or every or roles or self._has_parameters),
        )

    @property
    def _has_parameters(self) -> bool:
        entry = self.document.entries.get(self.project.parameters)
        return entry is not None and _is_set(entry)

    def _finish(self, **fields: Any) -> dict[str, Any]:
        """Return the fields with the meaning of the default, and the towers that are left alone."""
        default, line = self.project.default, self.document.line
        if fields.get("is_default") and default == "every":
            fields |= {"every": Named(self.project.every[0], line), "is_default": False}
        elif fields.get("is_default") and isinstance(default, tuple):
            fields |= {"names": tuple(Named(name, line) for name in default), "is_default": False}
        elif fields.get("is_default") and default == "own":
            fields |= {"unread": "it names none, and the program has its own", "is_default": False}
        if self.project.frozen_if == "any" or fields.get("every"):
            fields["frozen"] = frozenset(self._list_frozen())
        return fields

    def _find_every(self, names: tuple[Named, ...], *, is_text: bool) -> Named | None:
        project, entries = self.project, self.document.entries
        switch = entries.get(project.every_if) if project.every_if else None
        if switch is not None and switch.value in {True, "true", "True"}:
            return Named(project.every_if, switch.line)
        is_read = is_text or project.every_in_list or (project.text == "list" and len(names) == 1)
        return next((name for name in names if is_read and name.text.lower() in project.every), None)

    def _list_roles(self, names: tuple[Named, ...]) -> Iterator[tuple[str, Named]]:
        for name in names if self.project.names else ():
            yield from ((role, name) for role in (self.project.names or {}).get(name.text, ("unknown",)))
        for switch in self.project.roles_if:
            entry = self.document.entries.get(switch["key"])
            if entry is not None and entry.value is True:
                yield from ((role, Named(switch["key"], entry.line)) for role in switch["roles"])

    def _list_frozen(self) -> Iterator[str]:
        for rule in self.project.frozen:
            entry = self.document.entries.get(rule["key"])
            given = entry.value if entry is not None else None
            is_on = given in {True, "true", "True"}
            is_frozen = bool(rule["default"]) if given is None else is_on is rule.get("when", True)
            yield from rule["towers"] if is_frozen else ()
