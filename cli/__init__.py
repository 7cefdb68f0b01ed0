"""The command line: ``loradar scan|lookup|submit|review|serve|...``. Each loads what it needs when it runs."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import LoradarError
from . import audit, audit_log, catalog, constants, db, history, lookup, scan, serve, similar, snapshot, token
from .contributions import drift, review, submissions, submit, yank

app = typer.Typer(
    name="loradar",
    help="Which layers of a model an adapter belongs on: scan, store, look up, serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("scan")(scan.scan)
app.command("lookup")(lookup.lookup)
app.command("audit")(audit.audit)
app.command("similar")(similar.similar)
app.command("list")(catalog.list_names)
app.command("submit")(submit.submit)
app.command("submissions")(submissions.submissions)
app.command("submission")(submissions.submission)
app.command("review")(review.review)
app.command("withdraw")(review.withdraw)
app.command("yank")(yank.yank)
app.command("restore")(yank.restore)
app.command("drift")(drift.drift)
app.command("history")(history.history)
app.command("changes")(history.changes)
app.command("diff")(history.diff)
app.command("snapshot")(snapshot.snapshot)
app.add_typer(audit_log.app, name="audit-log")
app.add_typer(token.app, name="token")
app.command("serve")(serve.serve)
app.add_typer(constants.app, name="constants")
app.add_typer(db.app, name="db")


@app.callback(invoke_without_command=True)
def loradar(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Which layers of a model an adapter belongs on: scan, store, look up, serve."""
    if version:
        from .. import __version__

        typer.echo(f"loradar {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every error of ours ends in one line (or one JSON object) and its exit code, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given)
    except LoradarError as error:
        if "--json" in given:
            typer.echo(json.dumps(error.to_dict()))
        else:
            typer.echo(f"Error: {error.message}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
