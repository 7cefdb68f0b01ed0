"""What ``loradar audit`` prints for people: totals, and what was found, by verdict."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from . import show

if TYPE_CHECKING:
    from ...registry import Outcome, Verdict

ORDER: "tuple[Verdict, ...]" = ("dead", "partial", "unproven", "live", "unscanned", "unknown")
NAMED_AT_MOST = 3
"""How many PEFT methods a row names before it only counts the rest."""


def print_audit(about: dict[str, Any], scanned: Sequence[str], outcomes: "Sequence[Outcome]") -> None:
    """Print a table of what was found, grouped by verdict, and the totals."""
    from rich.table import Table

    table = Table(title=f"{about['library']} {about['library_version']}", title_justify="left")
    for column in ("verdict", "architecture", "methods", "targets"):
        table.add_column(column, overflow="fold")
    table.add_column("findings", overflow="fold", ratio=1)
    for row in _rows(outcomes):
        table.add_row(*row)
    if table.row_count:
        show.print_table(table)
    totals = Counter(outcome.verdict for outcome in outcomes)
    counted = ", ".join(f"{totals[verdict]:,} {verdict}" for verdict in ORDER if totals[verdict])
    typer.echo(f"{len(outcomes):,} mappings: {counted or 'none'}")
    typer.echo(f"{len(scanned)} architectures scanned now; the other verdicts were on record for this version.")


def _rows(outcomes: "Sequence[Outcome]") -> list[tuple[str, str, str, str, str]]:
    """Return a row for all methods with the same targets and findings; where nothing was found there is none."""
    methods: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.findings:
            targets = "; ".join(value for _, value in show.describe_spec(outcome.mapping.spec))
            key = (outcome.verdict, outcome.mapping.name, targets, "\n".join(outcome.findings))
            methods[key].append(outcome.mapping.peft_type)
    ordered = sorted(methods, key=lambda key: (ORDER.index(key[0]), key))
    return [(key[0], key[1], _some(methods[key]), key[2], key[3]) for key in ordered]


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    unique = list(dict.fromkeys(names))
    left = len(unique) - NAMED_AT_MOST
    return ", ".join(unique[:NAMED_AT_MOST]) + (f" and {left} more" if left > 0 else "")
