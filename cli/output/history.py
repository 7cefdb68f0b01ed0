"""What the commands on changes print for people: revisions, changes and differences, in plain lines."""

from collections.abc import Iterable
from typing import Any

import typer

from ...domain.changes import Change, Revision
from ...domain.submissions import Difference
from . import show

_SAID = ("reason", "comment", "decision", "loradar", "peft", "library_version")
"""Details worth a line, in the order they are told."""


def print_history(revisions: Iterable[Revision]) -> None:
    """Print each revision with what was done to it."""
    question = ""
    for revision in revisions:
        mapping = revision.mapping
        asked = f"{mapping.peft_type} · {mapping.preset}"
        if asked != question:
            typer.echo(asked)
            question = asked
        state = f", yanked {_at(revision.yanked_at)}: {revision.yank_reason}" if revision.yanked_at else ""
        typer.echo(f"  {mapping.source.kind} {mapping.source.version}, revision {mapping.revision}{state}")
        typer.echo(f"    {mapping.id}")
        for name, value in show.describe_spec(mapping.spec):
            typer.echo(f"    {name}  {value}")
        for change in revision.changes:
            typer.echo(f"    {_describe(change)}")


def print_changes(changes: Iterable[Change]) -> None:
    """Print a line for each change, and one for what it is about."""
    for change in changes:
        typer.echo(f"{change.serial:>6}  {_describe(change)}")
        about = change.details.get("subjects", [])
        if about:
            more = f" and {len(about) - 2} more" if about[2:] else ""
            typer.echo(f"        {', '.join(about[:2])}{more}")


def _describe(change: Change) -> str:
    said = "; ".join(f"{name}: {change.details[name]}" for name in _SAID if _is_told(change.details, name))
    return f"{_at(change.at)}  {change.actor}  {change.action}" + (f"  {said}" if said else "")


def _is_told(details: dict[str, Any], name: str) -> bool:
    return details.get(name) is not None


def _at(time: str | None) -> str:
    """Return a time to the second, as people read it."""
    return (time or "")[:19].replace("T", " ")


def print_difference(difference: Difference) -> None:
    """Print the layers more and less than another mapping."""
    typer.echo(f"against {difference.against} ({difference.mapping_id})")
    for sign, patterns in (("+", difference.more), ("-", difference.less)):
        for pattern, count in patterns.items():
            typer.echo(f"{sign} {count or 'some':>6}  {pattern}")
    if not difference.more and not difference.less:
        typer.echo("both reach the same layers")
