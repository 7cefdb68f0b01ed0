"""``loradar review`` and ``loradar withdraw``: what becomes of a submission."""

from typing import Annotated

import typer

from ...domain.schema import to_json
from ...errors import InvalidRequest
from ..options import AsJson, IfMatch, Number, Reason, Secret, Url
from ..output import show
from ..output import submission as show_submission
from .backend import open_desk


def review(
    submission_id: Number,
    *,
    approve: Annotated[bool | None, typer.Option("--approve/--reject", help="Publish it, or turn it down.")] = None,
    comment: Reason,
    if_match: IfMatch = None,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Decide about somebody else's submission."""
    if approve is None:
        message = f"Say what you decide: loradar review {submission_id} --approve, or --reject"
        raise InvalidRequest(message, submission=submission_id)
    with open_desk(url, secret) as desk:
        decided = desk.review(submission_id, "approve" if approve else "reject", comment, version=if_match)
    if as_json:
        show.print_json(to_json(decided))
        return
    typer.echo(show_submission.name(decided))
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
    """Take a submission of your own back, as long as nobody has decided about it."""
    with open_desk(url, secret) as desk:
        withdrawn = desk.withdraw(submission_id, reason, version=if_match)
    if as_json:
        show.print_json(to_json(withdrawn))
    else:
        typer.echo(show_submission.name(withdrawn))
