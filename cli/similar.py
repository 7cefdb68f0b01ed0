"""``loradar similar``: the architectures nearest to one, and how they differ from it."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..domain.schema import to_json
from ..references import Reference
from .output import show

if TYPE_CHECKING:
    from ..domain.summaries import Neighbour


def similar(
    reference: Annotated[str, typer.Argument(help="llama, timm:resnet50")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Architectures at most.")] = 10,
    url: Annotated[str | None, typer.Option(help="Ask a loradar service instead of the local registry.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the architectures nearest to one by what their layers are, with the differences in words."""
    found = _ask(Reference.parse(reference), limit, url)
    if as_json:
        show.print_json({"similar": [to_json(neighbour) for neighbour in found]})
    else:
        show.print_similar(found)


def _ask(reference: Reference, limit: int, url: str | None) -> "tuple[Neighbour, ...]":
    if url:
        from ..client import Client

        with Client(url) as client:
            return client.similar(reference.scheme, reference.registered_name, limit)
    from ..registry import Registry

    with Registry.open() as registry:
        return registry.list_similar(reference.scheme, reference.registered_name, limit)
