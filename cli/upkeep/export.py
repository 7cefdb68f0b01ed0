"""``loradar export``: the answers of the registry for who wants no service."""

from pathlib import Path
from typing import Annotated

import typer

from ..options import AsJson, spell_out
from ..output import print_json

app = typer.Typer(name="export", help="Export answers for a file server.", no_args_is_help=True, callback=lambda: None)


@app.command()
def static(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder: new, empty, or with an earlier export.")],
    references: Annotated[
        list[str] | None, typer.Argument(metavar="REFERENCE", help="Architectures; all if none is given.")
    ] = None,
    *,
    architectures: Annotated[
        bool, typer.Option("--architectures/--no-architectures", help="Write v1/architectures, most of the bytes.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write every answer as JSON files at the paths of the REST service, for a file server or CDN."""
    from ...progress import track
    from ...registry import Registry, write_static

    wanted = tuple(map(spell_out, references or ()))
    with Registry.open() as registry:
        steps = write_static(registry, folder, wanted, with_architectures=architectures)
        total = len(wanted) or len(registry.list_references())
        written = sum(1 for _ in track(steps, "exporting", total))
        serial = registry.serial()
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    if as_json:
        found = {"folder": str(folder), "architectures": written, "files": len(sizes), "bytes": sum(sizes)}
        print_json({**found, "serial": serial})
        return
    size = f"{len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB"
    typer.echo(f"{folder}: {written:,} architectures in {size}, at serial {serial}")


@app.command()
def site(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder: new, empty, or with an earlier site.")],
    references: Annotated[
        list[str] | None, typer.Argument(metavar="REFERENCE", help="Architectures; all if none is given.")
    ] = None,
    *,
    service: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Service that links to other pages lead to; without one they are text."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the pages of the service as files, for a CDN or a folder that a browser opens."""
    from ...api.site import write_site
    from ...progress import track
    from ...settings import Settings

    wanted = tuple(map(spell_out, references or ()))
    steps = write_site(Settings.from_environment(), folder, wanted, service)
    written = list(track(steps, "writing"))
    size, pages = sum(each.size for each in written), sum(each.is_architecture for each in written)
    if as_json:
        print_json({"folder": str(folder), "architectures": pages, "files": len(written), "bytes": size})
        return
    typer.echo(f"{folder}: {pages:,} architectures in {len(written):,} files, {size / 1e6:,.1f} MB")
