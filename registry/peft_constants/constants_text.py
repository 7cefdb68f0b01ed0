"""Render exported tables as text: a Python module with all of them, and rows of PEFT's support matrix in Markdown."""

from collections import defaultdict
from collections.abc import Iterable
from importlib import metadata

from ...data import read_facts
from ...domain.mappings import ArchitectureSummary, Mapping
from ...domain.targets import Targets
from .export import ExportPlan, plan_export, to_plain
from .reading import IA3_FEEDFORWARD_TABLE, TARGETS_TABLE, PeftConstants, load_constants, peft_type_of
from .syntax import Style

MATRIX = "peft_readme.toml"
"""The layout of PEFT's support matrix."""

HEADER = '''"""Target modules of transformers' architectures, by model type, in the names of PEFT's own tables.

Written by loradar {version}{stated}. Entries PEFT lacks are those of which every layer was seen
to receive a gradient.
"""
'''


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
    layout = read_facts(MATRIX)
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
    layout = read_facts(MATRIX)
    for title, endings in layout["sections"].items():
        for ending in endings:
            if class_name.endswith(ending):
                return title, class_name.removesuffix(ending)
    return layout["other"], class_name.removesuffix("Model")
