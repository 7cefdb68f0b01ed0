"""cli *commands*: ``loradar scan|lookup|submit|review|serve|...``; each imports its libraries only when it runs."""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import LoradarError
from . import audit, catalog, constants, explain, history, lookup, scan, service, snippet
from .contributing import review, submissions, submit
from .upkeep import db, export, mirror

app = typer.Typer(
    name="loradar",
    help="Which layers of a model an adapter belongs on: scan, store, look up, serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("scan")(scan.scan)
app.command("lookup")(lookup.lookup)
app.command("snippet")(snippet.snippet)
app.command("explain")(explain.explain)
app.command("open")(explain.open_page)
app.command("plan")(scan.plan)
app.command("doctor")(scan.doctor)
app.command("check")(audit.check)
app.command("audit")(audit.audit)
app.command("similar")(lookup.similar)
app.command("usage")(lookup.usage)
app.command("list")(lookup.list_names)
app.command("search")(lookup.search)
app.command("submit")(submit.submit)
app.command("submissions")(submissions.submissions)
app.command("submission")(submissions.submission)
app.command("review")(review.review)
app.command("withdraw")(review.withdraw)
app.command("yank")(review.yank)
app.command("restore")(review.restore)
app.command("drift")(audit.drift)
app.command("history")(history.history)
app.command("changes")(history.changes)
app.command("diff")(history.diff)
app.add_typer(mirror.snapshots, name="snapshot")
app.command("sync")(mirror.sync)
app.add_typer(db.audit_log, name="audit-log")
app.add_typer(service.token_group, name="token")
app.command("serve")(service.serve)
app.command("crawl")(catalog.crawl)
app.add_typer(catalog.app, name="catalog")
app.add_typer(constants.app, name="constants")
app.add_typer(db.app, name="db")
app.add_typer(export.app, name="export")


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
    """Run a command; a loradar error is printed as one line (or one JSON object) and sets the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    format_warning, warnings.formatwarning = warnings.formatwarning, _format_warning
    try:
        app(args=argv)
    except LoradarError as error:
        if "--json" in argv:
            typer.echo(json.dumps(error.to_dict()))
        else:
            typer.echo(f"Error: {error.message}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of standard output has gone: discard the rest of the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        warnings.formatwarning = format_warning


def _format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning as an error is: its place in the code means nothing to who runs a command."""
    return f"Warning: {message}\n"
