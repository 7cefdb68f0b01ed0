"""The registry's answers as a Python file with the names of PEFT's tables: importable by itself, without PEFT."""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.resources import files
from typing import Any

from ...domain.mappings import Mapping
from ...domain.summaries import ArchitectureSummary
from ...domain.targets import Targets
from .export import ExportPlan, plan_export
from .reading import IA3_FEEDFORWARD_TABLE, TARGETS_TABLE, PeftConstants, load_constants, peft_type_of

Tables = dict[str, dict[str, Targets]]

HEADER = '''"""Target modules of transformers' architectures, by model type, in the names of PEFT's own tables.

Written by loradar {version}{stated}. Entries PEFT lacks are those of which every layer was seen
to receive a gradient.
"""
'''


def constants_python(mappings: Iterable[Mapping], *, only_ours: bool = False) -> str:
    """Return the source of a module with every table: PEFT's entries as they are stored, then what they lack.

    Args:
        mappings: What the registry holds for transformers (``Registry.list_mappings``).
        only_ours: Leave PEFT's entries out.
    """
    mappings = tuple(mappings)
    stored = _stored(mappings)
    file = PeftConstants("", {table: _plain(entries) for table, entries in stored.items()}, {})
    ours = plan_export(mappings, file, [*stored]).entries()
    tables: Tables = {table: ({} if only_ours else stored[table]) | ours.get(table, {}) for table in stored}
    versions = sorted({mapping.source.version for mapping in mappings if mapping.source.kind == "peft"})
    stated = f"; PEFT's entries are those of {', '.join(versions)}" if versions and not only_ours else ""
    header = HEADER.format(version=metadata.version("loradar"), stated=stated)
    return "\n".join([header, *_statements(tables)])


def _stored(mappings: Iterable[Mapping]) -> Tables:
    """Return PEFT's tables as the registry holds them, in the order of its file."""
    names = {peft_type_of(table): table for table in load_constants().tables if peft_type_of(table)}
    tables: Tables = {table: {} for table in [*names.values(), IA3_FEEDFORWARD_TABLE]}
    for mapping in mappings:
        if mapping.source.kind != "peft" or mapping.spec.target_modules is None:
            continue
        table = names.get(mapping.peft_type, TARGETS_TABLE.format(mapping.peft_type))
        tables.setdefault(table, {})[mapping.name] = mapping.spec.target_modules
        if mapping.spec.feedforward_modules is not None:
            tables[IA3_FEEDFORWARD_TABLE][mapping.name] = mapping.spec.feedforward_modules
    return tables


def _statements(tables: Tables) -> Iterator[str]:
    """Yield a statement per table; one that says the same as another before is its copy, as in PEFT's file."""
    style = Style()
    written: dict[str, str] = {}
    for table, entries in tables.items():
        lines = (f"    {style.string(name)}: {style.value(name, value)},\n" for name, value in entries.items())
        literal = f"{{\n{''.join(lines)}}}" if entries else "{}"
        original = written.setdefault(literal, table)
        yield f"{table} = {literal if original == table else f'{original}.copy()'}\n"


def _plain(entries: dict[str, Targets]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()}


WIDTH = 119
"""PEFT's line length (``line-length`` of its ``pyproject.toml``, 0.3 to 0.21)."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a dict is written.

    Attributes:
        quote: The quotes of its strings.
        indent: What stands before an entry on a line of its own, beyond ``block``.
        block: What stands before every line of the block the dict is in.
        step: One level of indentation.
        newline: What ends a line.
    """

    quote: str = '"'
    indent: str = "    "
    block: str = ""
    step: str = "    "
    newline: str = "\n"

    def string(self, text: str) -> str:
        """Return a string literal; raw where that saves doubled backslashes."""
        other = "'" if self.quote == '"' else '"'
        quote = other if self.quote in text and other not in text else self.quote
        if not (text.isprintable() and text.isascii()):
            return ascii(text)
        if quote in text or text.endswith("\\"):
            escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
            return f"{quote}{escaped}{quote}"
        prefix = "r" if "\\" in text else ""
        return f"{prefix}{quote}{text}{quote}"

    def flat(self, targets: Targets) -> str:
        """Return a value on one line."""
        if isinstance(targets, str):
            return self.string(targets)
        return f"[{', '.join(map(self.string, targets))}]"

    def value(self, name: str, targets: Targets) -> str:
        """Return a value as it stands behind its key, on one line if that fits; its further lines lack the block's."""
        flat = self.flat(targets)
        line = f"{self.block}{self.indent}{self.string(name)}: {flat},"
        if len(line) <= WIDTH or isinstance(targets, str) or not targets:
            return flat
        inner = self.newline + self.indent + self.step
        return f"[{''.join(f'{inner}{self.string(target)},' for target in targets)}{self.newline}{self.indent}]"


def support_rows(plan: ExportPlan, architectures: Iterable[ArchitectureSummary]) -> str:
    """Return Markdown: for each task a table with a row per architecture; empty if nothing is added.

    A mark stands only for a method whose table gets the entry, and an architecture without any has no row: of prompt
    learning nothing was tried.

    Args:
        plan: What is added.
        architectures: Those the registry knows, which tell the class of each.
    """
    form = _form()
    classes = {found.architecture.name: found.architecture.class_name or "" for found in architectures}
    methods: dict[str, set[str]] = defaultdict(set)
    for export in plan.added:
        methods[export.name].add(export.mapping.peft_type)
    rows: dict[str, list[str]] = defaultdict(list)
    for name in [name for name, proved in methods.items() if proved & form["columns"].keys()]:
        section, label = _section(classes.get(name) or name)
        rows[section].append(_row(label, [column in methods[name] for column in form["columns"]]))
    titles = [*form["sections"], form["other"]]
    return "\n".join(_table(title, rows[title]) for title in titles if title in rows)


def _section(class_name: str) -> tuple[str, str]:
    """Return the section a class belongs to, and what its row is called: the class without the task."""
    form = _form()
    for title, endings in form["sections"].items():
        for ending in endings:
            if class_name.endswith(ending):
                return title, class_name.removesuffix(ending)
    return form["other"], class_name.removesuffix("Model")


def _table(title: str, rows: list[str]) -> str:
    columns = _form()["columns"].values()
    lines = [f"### {title}", f"|   Model         | {' | '.join(columns)} |", "| --------- |" + " ---- |" * len(columns)]
    return "\n".join([*lines, *sorted(set(rows))]) + "\n"


def _row(label: str, proved: list[bool]) -> str:
    form = _form()
    marks = [form["marks"]["proved" if is_proved else "other"] for is_proved in proved]
    return f"| {label:<{form['width']}} | {' | '.join(f'{mark} ' for mark in marks)} |"


@cache
def _form() -> dict[str, Any]:
    return tomllib.loads((files("loradar.data") / "peft_readme.toml").read_text("utf-8"))
