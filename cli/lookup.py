"""``loradar lookup``: the targets on record for an architecture, from the registry or from a service."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..domain.schema import to_json
from ..references import Reference
from .output import show

if TYPE_CHECKING:
    from ..domain.mappings import Mapping


def lookup(
    reference: Annotated[str, typer.Argument(help="llama, timm:resnet50")],
    *,
    peft_type: Annotated[str, typer.Option(help="PEFT method: LORA, IA3, ...")] = "LORA",
    preset: Annotated[str, typer.Option(help="default, attention, mlp, all-linear or experts.")] = "default",
    library_version: Annotated[
        str | None, typer.Option(help="The library version it is for; else the newest seen.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask a loradar service instead of the local registry.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look up the default targets of an architecture."""
    mapping = _ask(Reference.parse(reference), peft_type, preset, library_version, url)
    if as_json:
        show.print_json(to_json(mapping))
    else:
        show.print_mapping(mapping)


def _ask(reference: Reference, peft_type: str, preset: str, library_version: str | None, url: str | None) -> "Mapping":
    name = reference.registered_name
    if url:
        from ..client import Client

        with Client(url) as client:
            return client.targets(name, peft_type, preset, reference.scheme, library_version)
    from ..registry import Registry

    with Registry.open() as registry:
        return registry.lookup(name, peft_type, preset, reference.scheme, library_version)
