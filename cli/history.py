"""``loradar history``, ``changes`` and ``diff``: show the changes of mappings, their authors, reasons and effects."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ..references import Reference
from ..schema import to_json
from .backend import read
from .options import LARGEST, AsJson, MappingId, ReferenceText, Url, spell_out
from .output import describe_spec, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..domain.changes import Change, Revision

DETAILS = ("reason", "comment", "decision", "loradar", "peft", "library_version")
"""Details of a change that are printed, in this order."""


def history(reference: ReferenceText, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show every revision of an architecture's mappings, yanked ones too: author, time and reason."""
    parsed = Reference.parse(spell_out(reference))
    library, name = parsed.scheme, parsed.registered_name
    revisions = read(
        url, lambda client: client.history(library, name), lambda registry: registry.list_history(library, name)
    )
    if as_json:
        listed = [to_json(revision) for revision in revisions]
        print_json({"architecture": {"library": library, "name": name}, "revisions": listed})
    else:
        print_history(revisions)


def print_history(revisions: "Iterable[Revision]") -> None:
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
        for name, value in describe_spec(mapping.spec):
            typer.echo(f"    {name}  {value}")
        for change in revision.changes:
            typer.echo(f"    {_describe(change)}")


def changes(
    *,
    since: Annotated[int, typer.Option(min=0, help="Only changes after this serial.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Changes at most.")] = 100,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the changes of the registry, oldest first."""
    listed = read(
        url,
        lambda client: tuple(islice(client.changes(since), limit)),
        lambda registry: registry.list_changes(since, min(limit, LARGEST)),
    )
    if as_json:
        print_json({"changes": [to_json(change) for change in listed]})
        return
    for change in listed:
        typer.echo(f"{change.serial:>6}  {_describe(change)}")
        subjects = change.details.get("subjects", [])
        if subjects:
            more = f" and {len(subjects) - 2} more" if subjects[2:] else ""
            typer.echo(f"        {', '.join(subjects[:2])}{more}")


def _describe(change: "Change") -> str:
    details = ((name, change.details.get(name)) for name in DETAILS)
    listed = "; ".join(f"{name}: {value}" for name, value in details if value is not None)
    return f"{_at(change.at)}  {change.actor}  {change.action}" + (f"  {listed}" if listed else "")


def _at(time: str | None) -> str:
    """Return a time to the second, for people."""
    return (time or "")[:19].replace("T", " ")


def diff(mapping_id: MappingId, other_id: MappingId, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show the layers that only the first mapping matches, and those that only the second does."""
    difference = read(
        url, lambda client: client.diff(mapping_id, other_id), lambda registry: registry.compare(mapping_id, other_id)
    )
    if as_json:
        print_json(to_json(difference))
        return
    typer.echo(f"against {difference.against} ({difference.mapping_id})")
    for sign, patterns in (("+", difference.more), ("-", difference.less)):
        for pattern, count in patterns.items():
            typer.echo(f"{sign} {count or 'some':>6}  {pattern}")
    if not difference.more and not difference.less:
        typer.echo("both match the same layers")
