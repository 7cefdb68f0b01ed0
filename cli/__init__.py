"""Define the commands ``loradar scan|lookup|submit|...``; each imports its libraries only when it runs."""

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from . import audit, catalog, constants, explain, history, lookup, scan, service, snippet
from .contributing import review, submissions, submit
from .running import run
from .upkeep import db, export, mirror

app = typer.Typer(
    name="loradar",
    help="Which layers of a model an adapter belongs on: scan, store, look up, serve.",
    epilog="Exit codes: 0 done; 1 what was examined is wrong; 2 an error, in one line; 130 interrupted.",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
app.command("mcp")(service.serve_agents)
app.command("crawl")(catalog.crawl)
app.add_typer(catalog.app, name="catalog")
app.add_typer(constants.app, name="constants")
app.add_typer(db.app, name="db")
app.add_typer(export.app, name="export")


@app.callback(invoke_without_command=True)
def loradar(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Which layers of a model an adapter belongs on: scan, store, look up, serve."""
    if version:
        from .. import __version__

        typer.echo(f"loradar {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a loradar error is printed as one line (or one JSON object) and sets the exit code."""
    format_warning, warnings.formatwarning = warnings.formatwarning, _format_warning
    try:
        run(app, sys.argv[1:] if arguments is None else arguments)
    finally:
        warnings.formatwarning = format_warning


def _format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning as an error is: its place in the code means nothing to who runs a command."""
    return f"Warning: {message}\n"
