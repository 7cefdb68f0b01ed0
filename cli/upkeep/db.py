"""``loradar db`` and ``audit-log``: the registry's database and its log of changes."""

from pathlib import Path
from typing import Annotated

import typer

from ...schema import to_json
from ..options import AsJson
from ..output import print_json, write_file

app = typer.Typer(name="db", help="Maintain the registry's database.", no_args_is_help=True)
audit_log = typer.Typer(
    name="audit-log", help="Verify the log of changes.", no_args_is_help=True, callback=lambda: None
)


@app.command()
def info(*, as_json: AsJson = False) -> None:
    """Show the registry's location, schema revision, contents and serial."""
    from ...registry import Registry, sqlite_file

    with Registry.open() as registry:
        state = registry.info()
    if as_json:
        print_json(to_json(state))
        return
    contents = ", ".join(f"{count:,} {table}" for table, count in state.counts.items())
    sources = ", ".join(f"{source.kind} {source.version}" for source in state.sources)
    own = sqlite_file(state.url)
    is_made = own is None or own.exists()
    note = "" if is_made else " (not made yet: the packaged registry is read until the first write)"
    typer.echo(f"database  {state.url}{note}, schema revision {state.revision}, serial {state.serial}")
    typer.echo(f"holds     {contents}")
    typer.echo(f"from      {sources}")


@app.command("compare-catalog")
def compare_catalog(
    older: Annotated[Path, typer.Argument(help="Compact catalog scanned under an older version of a library.")],
    out: Annotated[Path, typer.Argument(help="File to write: only the differences.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write the differences of a library's older version from the catalog, the form that seeds version ranges."""
    from ...registry import compare_catalog as compare

    lines = [*compare(older)]
    write_file(out, "".join(line + "\n" for line in lines))
    if as_json:
        print_json({"file": str(out), "lines": len(lines)})
    else:
        typer.echo(f"{out}: {len(lines)} lines")


@audit_log.command()
def verify(
    *,
    expect: Annotated[
        str | None, typer.Option(help="An earlier head kept elsewhere, which must be in the log.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the log of changes and the ids of all mappings; exit with 1 on a mismatch."""
    from ...errors import AuditLogBroken
    from ...registry import Registry

    with Registry.open() as registry:
        report = registry.verify_log(expect)
    if report.faults:
        message = f"The log of changes is broken: {'; '.join(report.faults)}. Restore the database from a backup."
        raise AuditLogBroken(message, **to_json(report))
    if as_json:
        print_json(to_json(report))
    else:
        typer.echo(f"whole: {report.entries} changes up to serial {report.serial}")
        typer.echo(f"head   {report.head}")
