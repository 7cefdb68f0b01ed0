"""``loradar db``: the registry's database, and what seeds it."""

from pathlib import Path
from typing import Annotated

import typer

from ..domain.schema import to_json
from .files import write_file
from .output import show

app = typer.Typer(name="db", help="Look after the registry's database.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def info(*, as_json: AsJson = False) -> None:
    """Show where the registry is, its schema revision, what it holds and its serial."""
    from ..registry import Registry

    with Registry.open() as registry:
        state = registry.info()
    if as_json:
        show.print_json(to_json(state))
        return
    held = ", ".join(f"{count:,} {table}" for table, count in state.counts.items())
    sources = ", ".join(f"{source.kind} {source.version}" for source in state.sources)
    typer.echo(f"database  {state.url}, schema revision {state.revision}, serial {state.serial}")
    typer.echo(f"holds     {held}")
    typer.echo(f"from      {sources}")


@app.command("compare-catalog")
def compare_catalog(
    older: Annotated[Path, typer.Argument(help="Compact catalog scanned under an older version of a library.")],
    out: Annotated[Path, typer.Argument(help="File to write: only what differs.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write what a library's older version differs in from the catalog, the form that seeds version ranges."""
    from ..registry import compare_catalog as compare

    lines = [*compare(older)]
    write_file(out, "".join(line + "\n" for line in lines))
    if as_json:
        show.print_json({"file": str(out), "lines": len(lines)})
    else:
        typer.echo(f"{out}: {len(lines)} lines")
