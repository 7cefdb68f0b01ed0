"""Render target tables as text: entries and modules in Python, and rows of PEFT's support matrix in Markdown."""

import tomllib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.resources import files
from typing import Any

from ...domain.mappings import ArchitectureSummary, Mapping
from ...domain.targets import Targets
from .export import ExportPlan, plan_export, to_plain
from .reading import IA3_FEEDFORWARD_TABLE, TARGETS_TABLE, PeftConstants, load_constants, peft_type_of

WIDTH = 119
"""PEFT's line length (``line-length`` of its ``pyproject.toml``, 0.3 to 0.21)."""

HEADER = '''"""Target modules of transformers' architectures, by model type, in the names of PEFT's own tables.

Written by loradar {version}{stated}. Entries PEFT lacks are those of which every layer was seen
to receive a gradient.
"""
'''


@dataclass(frozen=True, slots=True)
class Style:
    """The formatting of a dict.

    Attributes:
        quote: The quote of its strings.
        indent: Indentation of an entry on its own line, relative to ``block``.
        block: Indentation of the block the dict is in.
        step: One level of indentation.
        newline: The line end.
    """

    quote: str = '"'
    indent: str = "    "
    block: str = ""
    step: str = "    "
    newline: str = "\n"

    def string(self, text: str) -> str:
        """Return a string literal; a raw one where that saves doubled backslashes."""
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
        """Return the source of targets on one line."""
        if isinstance(targets, str):
            return self.string(targets)
        return f"[{', '.join(map(self.string, targets))}]"

    def value(self, name: str, targets: Targets) -> str:
        """Return the source of an entry's targets, on one line if that fits; further lines lack the block's indent."""
        flat = self.flat(targets)
        line = f"{self.block}{self.indent}{self.string(name)}: {flat},"
        if len(line) <= WIDTH or isinstance(targets, str) or not targets:
            return flat
        inner = self.newline + self.indent + self.step
        return f"[{''.join(f'{inner}{self.string(target)},' for target in targets)}{self.newline}{self.indent}]"


def constants_python(mappings: Iterable[Mapping], *, only_ours: bool = False) -> str:
    """Return a Python module with every table: PEFT's entries, then the proved entries it lacks.

    The module imports without PEFT. As in PEFT's file, a table equal to an earlier one is a copy of it.

    Args:
        mappings: The registry's mappings for transformers (``Registry.list_mappings``).
        only_ours: Leave PEFT's entries out.
    """
    mappings = tuple(mappings)
    stored = _peft_tables(mappings)
    plain = {table: {name: to_plain(value) for name, value in entries.items()} for table, entries in stored.items()}
    ours = plan_export(mappings, PeftConstants("", plain, {}), [*stored]).entries()
    versions = sorted({mapping.source.version for mapping in mappings if mapping.source.kind == "peft"})
    stated = f"; PEFT's entries are those of {', '.join(versions)}" if versions and not only_ours else ""
    statements = [HEADER.format(version=metadata.version("loradar"), stated=stated)]
    style = Style()
    names_by_literal: dict[str, str] = {}
    for table, peft_entries in stored.items():
        entries = ({} if only_ours else peft_entries) | ours.get(table, {})
        lines = (f"    {style.string(name)}: {style.value(name, value)},\n" for name, value in entries.items())
        literal = f"{{\n{''.join(lines)}}}" if entries else "{}"
        original = names_by_literal.setdefault(literal, table)
        statements.append(f"{table} = {literal if original == table else f'{original}.copy()'}\n")
    return "\n".join(statements)


def _peft_tables(mappings: Iterable[Mapping]) -> dict[str, dict[str, Targets]]:
    """Return PEFT's tables as stored in the registry, in the order of PEFT's file."""
    names = {peft_type_of(table): table for table in load_constants().tables if peft_type_of(table)}
    tables: dict[str, dict[str, Targets]] = {table: {} for table in [*names.values(), IA3_FEEDFORWARD_TABLE]}
    for mapping in mappings:
        if mapping.source.kind != "peft" or mapping.spec.target_modules is None:
            continue
        table = names.get(mapping.peft_type, TARGETS_TABLE.format(mapping.peft_type))
        tables.setdefault(table, {})[mapping.name] = mapping.spec.target_modules
        if mapping.spec.feedforward_modules is not None:
            tables[IA3_FEEDFORWARD_TABLE][mapping.name] = mapping.spec.feedforward_modules
    return tables


def support_rows(plan: ExportPlan, architectures: Iterable[ArchitectureSummary]) -> str:
    """Return the rows an export adds to PEFT's support matrix, as a Markdown table per task; empty if there are none.

    A method is marked only if its table gets the entry. An architecture without a mark has no row; prompt learning is
    never marked, because it has no targets to prove.

    Args:
        plan: The added entries.
        architectures: Those the registry knows, for their class names.
    """
    layout = _matrix_layout()
    columns = layout["columns"]
    classes = {summary.architecture.name: summary.architecture.class_name or "" for summary in architectures}
    methods: dict[str, set[str]] = defaultdict(set)
    for export in plan.added:
        methods[export.name].add(export.mapping.peft_type)
    rows: dict[str, set[str]] = defaultdict(set)
    for name, proved in methods.items():
        if proved & columns.keys():
            section, label = _find_section(classes.get(name) or name)
            marks = [layout["marks"]["proved" if column in proved else "other"] for column in columns]
            rows[section].add(f"| {label:<{layout['width']}} | {' | '.join(f'{mark} ' for mark in marks)} |")
    head = [f"|   Model         | {' | '.join(columns.values())} |", "| --------- |" + " ---- |" * len(columns)]
    titles = [title for title in (*layout["sections"], layout["other"]) if title in rows]
    return "\n".join("\n".join([f"### {title}", *head, *sorted(rows[title])]) + "\n" for title in titles)


def _find_section(class_name: str) -> tuple[str, str]:
    """Return the section of a class and the label of its row: the class name without the task."""
    layout = _matrix_layout()
    for title, endings in layout["sections"].items():
        for ending in endings:
            if class_name.endswith(ending):
                return title, class_name.removesuffix(ending)
    return layout["other"], class_name.removesuffix("Model")


@cache
def _matrix_layout() -> dict[str, Any]:
    return tomllib.loads((files("loradar.data") / "peft_readme.toml").read_text("utf-8"))
