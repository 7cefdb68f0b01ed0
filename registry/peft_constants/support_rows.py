"""Rows of PEFT's support matrix for what an export adds (``data/peft_readme.toml``), ready for the pull request."""

import tomllib
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from ...domain.summaries import ArchitectureSummary
from .export import ExportPlan


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
