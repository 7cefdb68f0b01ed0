"""``loradar db``: the registry's database and PEFT's constants in it."""

from pathlib import Path
from typing import Annotated

import typer

from . import show

app = typer.Typer(name="db", help="Look after the registry's database.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def info(*, as_json: AsJson = False) -> None:
    """Show where the registry is, its schema revision, what it holds and its serial."""
    from ..registry import Registry

    with Registry.open() as registry:
        state = registry.info()
    if as_json:
        show.print_json(state.to_dict())
        return
    held = ", ".join(f"{count:,} {table}" for table, count in state.counts.items())
    sources = ", ".join(f"{source.kind} {source.version}" for source in state.sources)
    typer.echo(f"database  {state.url}, schema revision {state.revision}, serial {state.serial}")
    typer.echo(f"holds     {held}")
    typer.echo(f"from      {sources}")


@app.command("import-constants")
def import_constants(
    path: Annotated[Path | None, typer.Argument(help="A constants.py; without it, the installed peft's.")] = None,
    version: Annotated[str | None, typer.Option(help="The peft version the file is from.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Store the tables of PEFT's constants.py, which is read but never run."""
    from ..registry import Registry, read_constants

    constants = read_constants(path, version)
    with Registry.open() as registry:
        report = registry.add_constants(constants)
    if as_json:
        show.print_json({"version": constants.version, **report.to_dict()})
    else:
        typer.echo(f"peft {constants.version}: {len(report.added)} new mappings, {len(report.unchanged)} unchanged.")


@app.command("export-constants")
def export_constants(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    path: Annotated[Path | None, typer.Argument(help="A constants.py; without it, the installed peft's.")] = None,
    version: Annotated[str | None, typer.Option(help="The peft version the file is from.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Write the facts of PEFT's constants.py as JSON, the form that seeds a registry."""
    from ..registry import read_constants, write_constants_json

    constants = read_constants(path, version)
    write_constants_json(constants, out)
    if as_json:
        show.print_json({"file": str(out), "version": constants.version})
    else:
        typer.echo(f"{out}: peft {constants.version}")


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
    out.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if as_json:
        show.print_json({"file": str(out), "lines": len(lines)})
    else:
        typer.echo(f"{out}: {len(lines)} lines")
