"""``loradar submissions`` and ``loradar submission``: what was brought in, and all that is known of one."""

from typing import Annotated, Any

import typer

from ...domain.schema import to_json
from ...domain.submissions import SUBMISSION_STATUSES
from ...errors import InvalidRequest, quoted
from ..options import LARGEST, AsJson, Number, Secret, Url
from ..output import show
from ..output import submission as show_submission
from .backend import open_desk
from .checks import Checks


def submissions(
    *,
    status: Annotated[str | None, typer.Option(help="Only those in this state, such as needs_review.")] = None,
    library: Annotated[str | None, typer.Option(help="Only those of this library.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this architecture.")] = None,
    submitter: Annotated[str | None, typer.Option(help="Only those of this contributor.")] = None,
    origin: Annotated[str | None, typer.Option(help="Only those from a contributor, or from drift.")] = None,
    before: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="Only those with a lower number than this.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many at most.")] = 50,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """List submissions, the newest first."""
    filters: Any = {"library": library, "name": name, "submitter": submitter}
    filters["status"] = _one_of("status", status, SUBMISSION_STATUSES)
    filters["origin"] = _one_of("origin", origin, ("contributor", "drift"))
    with open_desk(url, secret, writes=False) as desk:
        found = desk.submissions(before=before, limit=limit, **filters)
    if as_json:
        show.print_json({"submissions": [to_json(one) for one in found]})
        return
    typer.echo("\n".join(map(show_submission.describe, found)) or "No such submission.")
    if len(found) == limit:
        typer.echo(f"There may be more: --before {found[-1].id}", err=True)


def _one_of(option: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is not None and value not in known:
        message = f"There is no {option} {value!r}. Give one of {quoted(known)}."
        raise InvalidRequest(message, **{option: value})
    return value


def submission(
    submission_id: Number,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is checked; without --url, check it.")] = False,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Show a submission with all that a reviewer needs to decide."""
    with open_desk(url, secret, writes=False) as desk:
        found = desk.submission(submission_id)
        if wait and found.status == "checking":
            with Checks(desk, lambda line: typer.echo(line, err=True)) as checks:
                found = checks.wait(submission_id)
    if as_json:
        show.print_json(to_json(found))
    else:
        show_submission.print_submission(found)
