"""``loradar review``, ``withdraw``, ``yank`` and ``restore``: decide on submissions and published revisions."""

from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import InvalidRequest
from ...schema import to_json
from ..backend import open_backend
from ..options import AsJson, IfMatch, MappingId, Number, Reason, Secret, Url
from ..output import print_json
from .submissions import headline

if TYPE_CHECKING:
    from ...domain.changes import Revision


def review(
    submission_id: Number,
    *,
    approve: Annotated[bool | None, typer.Option("--approve/--reject", help="Publish it, or reject it.")] = None,
    comment: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Approve or reject another person's submission."""
    if approve is None:
        message = f"No decision given: loradar review {submission_id} --approve, or --reject"
        raise InvalidRequest(message, submission=submission_id)
    with open_backend(url, secret) as backend:
        decided = backend.review(submission_id, "approve" if approve else "reject", comment, version=if_match)
    if as_json:
        print_json(to_json(decided))
        return
    typer.echo(headline(decided))
    if decided.mapping_id:
        typer.echo(f"It is mapping {decided.mapping_id}")


def withdraw(
    submission_id: Number,
    *,
    reason: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw your own submission before it is decided."""
    with open_backend(url, secret) as backend:
        withdrawn = backend.withdraw(submission_id, reason, version=if_match)
    if as_json:
        print_json(to_json(withdrawn))
    else:
        typer.echo(headline(withdrawn))


def yank(
    mapping_id: MappingId,
    *,
    reason: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Take a published revision out of use; nothing is deleted."""
    with open_backend(url, secret) as backend:
        _print_revision(backend.yank(mapping_id, reason, version=if_match), as_json=as_json)


def restore(
    mapping_id: MappingId,
    *,
    reason: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Take a yanked revision into use again."""
    with open_backend(url, secret) as backend:
        _print_revision(backend.restore(mapping_id, reason, version=if_match), as_json=as_json)


def _print_revision(revision: "Revision", *, as_json: bool) -> None:
    if as_json:
        print_json(to_json(revision))
        return
    mapping = revision.mapping
    title = f"{mapping.library}:{mapping.name} · {mapping.peft_type} · {mapping.preset}"
    state = f"is yanked: {revision.yank_reason}" if revision.yanked_at else "is used again"
    typer.echo(f"{title} · {mapping.source.kind} revision {mapping.revision} {state}")
    typer.echo(f"It is mapping {mapping.id}")
