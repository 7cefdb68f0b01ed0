"""``loradar yank`` and ``loradar restore``: have a published revision no longer used, or used again."""

from typing import TYPE_CHECKING, Annotated

import typer

from ...domain.schema import to_json
from ..options import AsJson, IfMatch, Reason, Secret, Url
from ..output import show
from .backend import open_desk

if TYPE_CHECKING:
    from ...domain.changes import Revision

MappingId = Annotated[str, typer.Argument(metavar="ID", help="The mapping's id, or the first eight digits of it.")]


def yank(
    mapping_id: MappingId,
    *,
    reason: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Have a revision of a mapping no longer used; nothing is deleted."""
    with open_desk(url, secret) as desk:
        _tell(desk.yank(mapping_id, reason, version=if_match), as_json=as_json)


def restore(
    mapping_id: MappingId,
    *,
    reason: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Have a yanked revision used again."""
    with open_desk(url, secret) as desk:
        _tell(desk.restore(mapping_id, reason, version=if_match), as_json=as_json)


def _tell(revision: "Revision", *, as_json: bool) -> None:
    if as_json:
        show.print_json(to_json(revision))
        return
    mapping = revision.mapping
    named = f"{mapping.library}:{mapping.name} · {mapping.peft_type} · {mapping.preset}"
    state = f"is yanked: {revision.yank_reason}" if revision.yanked_at else "is used again"
    typer.echo(f"{named} · {mapping.source.kind} revision {mapping.revision} {state}")
    typer.echo(f"It is mapping {mapping.id}")
