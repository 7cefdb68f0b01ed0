"""``loradar db`` and ``audit-log``: the registry's database and its log of changes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...schema import to_json
from ..options import AsJson
from ..output import print_json, write_file, writing

if TYPE_CHECKING:
    from ...registry.db.backups import Copy

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


@app.command()
def check(*, as_json: AsJson = False) -> None:
    """Check pages, references, schema and log of the database; exit with 1 on a fault, 2 if it cannot be read."""
    from ...registry import check_database
    from ...settings import Settings

    report = check_database(Settings.from_environment().database_url)
    if as_json:
        print_json(asdict(report))
    else:
        for line in report.sound:
            typer.echo(f"sound  {line}")
        for line in report.faults:
            typer.echo(f"FAULT  {line}")
    if report.faults:
        raise typer.Exit(1)


@app.command()
def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File to write: a copy of the whole database.", dir_okay=False)
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the database to a file, also while services write to it; it appears once it is complete and checked."""
    from ...registry import back_up
    from ...settings import Settings

    with writing(file):
        copy = back_up(Settings.from_environment().database_url, file, is_forced=force)
    _print_copy(copy, f"{copy.file}: serial {copy.serial}, {copy.size:,} bytes", as_json=as_json)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", exists=True, dir_okay=False)],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the database; a copy of it is kept.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the content of a backup in the place of the database's, also while services use it."""
    from ...registry import restore as put_back
    from ...settings import Settings

    url = Settings.from_environment().database_url
    with writing(file):
        copy = put_back(url, file, is_forced=force)
    kept = f"; the one before is in {copy.kept}" if copy.kept else ""
    _print_copy(copy, f"{copy.file} is at serial {copy.serial}{kept}", as_json=as_json)


def _print_copy(copy: "Copy", line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"serial": copy.serial, "size": copy.size, "file": str(copy.file), "kept": copy.kept and str(copy.kept)}
        )
    else:
        typer.echo(line)


@app.command("compare-catalog")
def compare_catalog(
    older: Annotated[
        Path, typer.Argument(metavar="OLDER", help="Compact catalog scanned under an older version of a library.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: only the differences.")],
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
