"""``loradar audit-log verify``: was anything in the registry changed behind loradar's back?"""

from typing import Annotated

import typer

from ..domain.schema import to_json
from .options import AsJson
from .output import show

app = typer.Typer(name="audit-log", help="Look after the log of changes.", no_args_is_help=True)


@app.callback()
def audit_log() -> None:
    """Look after the log of changes."""


@app.command()
def verify(
    *,
    expect: Annotated[
        str | None, typer.Option(help="A digest kept elsewhere, the head some time ago: it must be in the log.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the log of changes and the ids of all mappings again; ends with 1 if something does not hold together."""
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
