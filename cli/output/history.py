"""Print revisions, changes and differences as plain lines."""

from collections.abc import Iterable

import typer

from ...domain.changes import Change, Revision
from ...domain.submissions import Difference
from . import show

_DETAILS = ("reason", "comment", "decision", "loradar", "peft", "library_version")
"""Details that are printed, in this order."""


def print_history(revisions: Iterable[Revision]) -> None:
    """Print each revision with its changes."""
    previous = ""
    for revision in revisions:
        mapping = revision.mapping
        title = f"{mapping.peft_type} · {mapping.preset}"
        if title != previous:
            typer.echo(title)
            previous = title
        state = f", yanked {_at(revision.yanked_at)}: {revision.yank_reason}" if revision.yanked_at else ""
        typer.echo(f"  {mapping.source.kind} {mapping.source.version}, revision {mapping.revision}{state}")
        typer.echo(f"    {mapping.id}")
        for name, value in show.describe_spec(mapping.spec):
            typer.echo(f"    {name}  {value}")
        for change in revision.changes:
            typer.echo(f"    {_describe(change)}")


def print_changes(changes: Iterable[Change]) -> None:
    """Print a line for each change, and one for its subjects."""
    for change in changes:
        typer.echo(f"{change.serial:>6}  {_describe(change)}")
        subjects = change.details.get("subjects", [])
        if subjects:
            more = f" and {len(subjects) - 2} more" if subjects[2:] else ""
            typer.echo(f"        {', '.join(subjects[:2])}{more}")


def _describe(change: Change) -> str:
    details = {name: change.details.get(name) for name in _DETAILS}
    listed = "; ".join(f"{name}: {value}" for name, value in details.items() if value is not None)
    return f"{_at(change.at)}  {change.actor}  {change.action}" + (f"  {listed}" if listed else "")


def _at(time: str | None) -> str:
    """Return a time to the second, for people."""
    return (time or "")[:19].replace("T", " ")


def print_difference(difference: Difference) -> None:
    """Print the layers that only one of two mappings matches."""
    typer.echo(f"against {difference.against} ({difference.mapping_id})")
    for sign, patterns in (("+", difference.more), ("-", difference.less)):
        for pattern, count in patterns.items():
            typer.echo(f"{sign} {count or 'some':>6}  {pattern}")
    if not difference.more and not difference.less:
        typer.echo("both match the same layers")
