"""Print the result of ``loradar audit``: findings by verdict, and totals."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ...domain.vocabulary import list_some
from . import show

if TYPE_CHECKING:
    from ...registry import Outcome, Verdict

ORDER: "tuple[Verdict, ...]" = ("dead", "partial", "unproven", "live", "unscanned", "unknown")


def print_audit(about: dict[str, Any], scanned: Sequence[str], outcomes: "Sequence[Outcome]") -> None:
    """Print a table of the outcomes that have findings, grouped by verdict, and the totals.

    Methods with the same targets and findings share a row.
    """
    from rich.table import Table

    methods: dict[tuple[Verdict, str, str, str], list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.findings:
            targets = "; ".join(value for _, value in show.describe_spec(outcome.mapping.spec))
            key = (outcome.verdict, outcome.mapping.name, targets, "\n".join(outcome.findings))
            methods[key].append(outcome.mapping.peft_type)
    table = Table(title=f"{about['library']} {about['library_version']}", title_justify="left")
    for column in ("verdict", "architecture", "methods", "targets"):
        table.add_column(column, overflow="fold")
    table.add_column("findings", overflow="fold", ratio=1)
    for key in sorted(methods, key=lambda key: (ORDER.index(key[0]), key)):
        table.add_row(*key[:2], list_some(dict.fromkeys(methods[key])), *key[2:])
    if table.row_count:
        show.print_table(table)
    totals = Counter(outcome.verdict for outcome in outcomes)
    counted = ", ".join(f"{totals[verdict]:,} {verdict}" for verdict in ORDER if totals[verdict])
    typer.echo(f"{len(outcomes):,} mappings: {counted or 'none'}")
    typer.echo(f"{len(scanned)} architectures scanned now; the other verdicts were on record for this version.")
