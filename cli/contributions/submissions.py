"""``loradar submissions`` and ``submission``: list submissions, or show one with its evidence."""

from typing import Annotated, Any

import typer

from ...domain.submissions import SUBMISSION_STATUSES
from ...errors import InvalidRequest, quoted
from ...schema import to_json
from ..options import LARGEST, AsJson, Number, Secret, Url
from ..output import show
from ..output import submission as show_submission
from .backend import open_backend
from .checks import Checks

ORIGINS = ("contributor", "drift")


def submissions(
    *,
    status: Annotated[str | None, typer.Option(help="Only those in this state, such as needs_review.")] = None,
    library: Annotated[str | None, typer.Option(help="Only those of this library.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this architecture.")] = None,
    submitter: Annotated[str | None, typer.Option(help="Only those of this contributor.")] = None,
    origin: Annotated[str | None, typer.Option(help="Only those from a contributor, or from drift.")] = None,
    before: Annotated[int | None, typer.Option(min=1, max=LARGEST, help="Only those with a lower number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Submissions at most.")] = 50,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """List submissions, newest first."""
    for option, value, known in (("status", status, SUBMISSION_STATUSES), ("origin", origin, ORIGINS)):
        if value is not None and value not in known:
            message = f"Unknown {option} {value!r}. Give one of {quoted(known)}."
            raise InvalidRequest(message, **{option: value})
    filters: Any = {"library": library, "name": name, "submitter": submitter, "status": status, "origin": origin}
    with open_backend(url, secret, needs_token=False) as backend:
        listed = backend.submissions(before=before, limit=limit, **filters)
    if as_json:
        show.print_json({"submissions": [to_json(submission) for submission in listed]})
        return
    typer.echo("\n".join(map(show_submission.line, listed)) or "No such submission.")
    if len(listed) == limit:
        typer.echo(f"There may be more: --before {listed[-1].id}", err=True)


def submission(
    submission_id: Number,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is checked; without --url, check it.")] = False,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Show a submission with everything a reviewer needs to decide."""
    with open_backend(url, secret, needs_token=False) as backend:
        shown = backend.submission(submission_id)
        if wait and shown.status == "checking":
            with Checks(backend) as checks:
                shown = checks.wait(submission_id)
    if as_json:
        show.print_json(to_json(shown))
    else:
        show_submission.print_submission(shown)
