"""``loradar audit-log``: verify that the registry was changed through loradar alone."""

from typing import Annotated

import typer

from ..schema import to_json
from .options import AsJson
from .output import show

app = typer.Typer(name="audit-log", help="Verify the log of changes.", no_args_is_help=True)


@app.callback()
def audit_log() -> None:
    """Verify the log of changes."""


@app.command()
def verify(
    *,
    expect: Annotated[
        str | None, typer.Option(help="An earlier head kept elsewhere, which must be in the log.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the log of changes and the ids of all mappings; exit with 1 on a mismatch."""
    from ..errors import AuditLogBroken
    from ..registry import Registry

    with Registry.open() as registry:
        report = registry.verify_log(expect)
    if report.faults:
        message = f"The log of changes is broken: {'; '.join(report.faults)}. Restore the database from a backup."
        raise AuditLogBroken(message, **to_json(report))
    if as_json:
        show.print_json(to_json(report))
    else:
        typer.echo(f"whole: {report.entries} changes up to serial {report.serial}")
        typer.echo(f"head   {report.head}")
