"""``loradar list``: the names a library knows."""

from typing import Annotated

import typer

from .output import show


def list_names(
    library: Annotated[str, typer.Argument(help="transformers or timm")] = "transformers",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every architecture a library knows, scanned or not."""
    from ..discovery import list_architectures

    names = list_architectures(library)
    if as_json:
        show.print_json({"library": library, "names": names})
    else:
        typer.echo("\n".join(names))
