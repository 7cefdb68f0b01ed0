"""``loradar submit``: bring a mapping in, and see what the machine finds out about it."""

from typing import TYPE_CHECKING, Annotated

import typer

from ...domain.schema import to_json
from ..options import AsJson, Secret, Url
from ..output import show
from ..output import submission as show_submission
from .backend import Desk, open_desk
from .checks import Checks
from .statements import read_statements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...domain.submissions import Statement, Submission


def submit(
    statement: Annotated[
        str,
        typer.Argument(metavar="FILE|JSON|-", help="""A .json or .toml file, or '{"olmo2": ["q_proj"]}'"""),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="With --url: wait until the checks are through.")] = False,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Submit a mapping, or several; it is checked first, then somebody else reviews it."""
    statements = read_statements(statement)
    with open_desk(url, secret) as desk, Checks(desk, _tell) as checks:
        checks.prepare()
        submitted = _submit(desk, statements)
        if wait or not url:
            submitted = [checks.wait(one.id) for one in submitted]
    if as_json:
        show.print_json({"submissions": [to_json(one) for one in submitted]})
    else:
        _print(submitted)
    if any(one.status == "failed" for one in submitted):
        raise typer.Exit(1)


def _submit(desk: Desk, statements: "Iterable[Statement]") -> "list[Submission]":
    """Submit one after the other; if one is refused, the error says what is in already."""
    from ...errors import LoradarError

    done: list[Submission] = []
    for statement in statements:
        try:
            done.append(desk.submit(statement))
        except LoradarError as error:
            error.details["submitted"] = [one.id for one in done]
            if done:
                _tell(f"Already in: {', '.join(f'submission {one.id}' for one in done)}.")
            raise
    return done


def _print(submitted: "Iterable[Submission]") -> None:
    for number, one in enumerate(submitted):
        if number:
            typer.echo()
        show_submission.print_submission(one)


def _tell(line: str) -> None:
    typer.echo(line, err=True)
