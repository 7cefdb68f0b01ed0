"""``loradar list`` and ``similar``: list the architectures of a library, or those nearest to one."""

from typing import Annotated

import typer

from ..references import Reference
from ..schema import to_json
from .options import AsJson, ReferenceText, Url
from .output import show


def list_names(
    library: Annotated[str, typer.Argument(help="transformers, timm or diffusers")] = "transformers",
    *,
    as_json: AsJson = False,
) -> None:
    """List every architecture a library knows, scanned or not."""
    from ..discovery import list_architectures

    names = list_architectures(library)
    if as_json:
        show.print_json({"library": library, "names": names})
    else:
        typer.echo("\n".join(names))


def similar(
    reference: ReferenceText,
    *,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Architectures at most.")] = 10,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the architectures nearest to one by what their layers do, with the differences in words."""
    parsed = Reference.parse(reference)
    if url:
        from ..client import Client

        with Client(url) as client:
            neighbours = client.similar(parsed.scheme, parsed.registered_name, limit)
    else:
        from ..registry import Registry

        with Registry.open() as registry:
            neighbours = registry.list_similar(parsed.scheme, parsed.registered_name, limit)
    if as_json:
        show.print_json({"similar": [to_json(neighbour) for neighbour in neighbours]})
    else:
        show.print_similar(neighbours)
